"""Independent re-implementations in NumPy: written from the equations, sharing no code with jaxdyn.

States are tuples (A, B) or (A, B, C) of arrays, possibly with leading batch axes.
"""

import numpy as np


def transpose(matrix):
    return np.swapaxes(matrix, -1, -2)


def rates(name, state, x, y, z, decay_a, decay_b, ratio=1.0, beta=0.0):
    """The right-hand sides, by name: "sg", "ema", "objective"."""
    a, b = state[0], state[1]
    c = state[2] if name == "ema" else a
    r = b @ a @ x - c @ y
    da = -transpose(b) @ r - decay_a * a
    db = -ratio * (r @ transpose(a)) - decay_b * b
    if name == "objective":
        da = da + b @ a @ transpose(y) - a @ z
    return (da, db, beta * (a - c)) if name == "ema" else (da, db)


def procedure(name, state, x, y, z, decay_a, decay_b, lr, ratio=1.0, alpha=1.0):
    """One step as the paper writes it: A and B from the old state, then C⁺ = αC + (1 − α)A⁺."""
    da, db, *_ = rates(name, state, x, y, z, decay_a, decay_b, ratio)
    a, b = state[0] + lr * da, state[1] + lr * db
    return (a, b, alpha * state[2] + (1 - alpha) * a) if name == "ema" else (a, b)


def energy(a, b, c, x, y, z, decay_a, decay_b):
    """½E‖BAx − Cy‖² + ½(λ_A‖A‖² + λ_B‖B‖²) by traces."""
    m = b @ a
    fit = np.trace(m @ x @ m.T) / 2 - np.trace(c.T @ m @ y.T) + np.trace(c @ z @ c.T) / 2
    return fit + decay_a * np.sum(a**2) / 2 + decay_b * np.sum(b**2) / 2


def run_scalar_trials(name, rho, tau, decay, a, b, lr, alpha, tolerance, max_steps):
    """Procedures at m = 1 for a batch, each trial stopped by the rule ‖Δ‖ < tol·μ·(1 + ‖state‖).

    Returns final (A, B[, C]), steps taken, and whether each stopped; a loop over one batch, no more.
    """
    x, y = rho[:, None, None], tau[:, None, None]
    decay, lr_ = decay[:, None, None], lr[:, None, None]
    state = (a.copy(), b.copy(), a.copy()) if name == "ema" else (a.copy(), b.copy())
    running, steps = np.ones(rho.size, bool), np.zeros(rho.size, int)
    for _ in range(max_steps):
        i = np.flatnonzero(running)
        if i.size == 0:
            break
        old = tuple(part[i] for part in state)
        new = procedure(name, old, x[i], y[i], 0.0, decay[i], decay[i], lr_[i], 1.0, alpha)
        moved = np.sqrt(sum(((n - o) ** 2).sum((1, 2)) for n, o in zip(new, old, strict=True)))
        size = np.sqrt(sum((n**2).sum((1, 2)) for n in new))
        for part, value in zip(state, new, strict=True):
            part[i] = value
        steps[i] += 1
        running[i[moved < tolerance * lr[i] * (1 + size)]] = False
    return state, steps, ~running
