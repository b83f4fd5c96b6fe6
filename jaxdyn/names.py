"""Names that settings offer before anything heavy is imported; the registries behind them must agree (tested)."""

SYSTEMS = {"sg": "stop gradient", "ema": "moving average", "objective": "objective"}
ENGINES = ("auto", "fused", "xla")
SOLVERS = ("tsit5", "dopri8", "kvaerno5")
DTYPES = ("float64", "float32")
