"""Numbers that the papers print, to stand beside what is computed."""

# P §5 (m = 1, 10,000 trials): per cent of trials; every trial converged. Other outcomes: none reported.
PUBLISHED_TRIALS = 10_000
PUBLISHED: dict[str, dict[str, float]] = {
    "sg": {"outer": 82.0, "origin": 18.0, "inner": 0.0},
    "ema": {"outer": 92.8, "origin": 7.2, "inner": 0.0},
}
