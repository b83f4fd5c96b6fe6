"""Plain kernels in numba: one trial after the other, threads over trials; and the blocks of lanes of the C kernel."""

from importlib import import_module

import numpy as np


def tsit5(field, dim):
    """The adaptive integrator of `tsit5.h` for a field written for numbers."""
    numba = import_module("numba")

    from jaxdyn.solve.methods import tsit5

    stages = np.zeros((6, 6))
    for k, row in enumerate(tsit5.A):
        stages[k, : len(row)] = row
    weights = np.array(tsit5.ERROR)
    rates = numba.njit(fastmath=True)(field)

    @numba.njit(fastmath=True)
    def rate(y, p, out):
        for i, value in enumerate(rates(0.0, y, p)):
            out[i] = value

    @numba.njit(fastmath=True, parallel=True)
    def solve(start, params, t1, rtol, atol, max_steps):
        end = start.copy()
        for trial in numba.prange(start.shape[0]):
            y, z, k, p = end[trial], np.empty(dim), np.empty((7, dim)), params[trial]
            t, h, steps = 0.0, 0.01, 0
            rate(y, p, k[0])
            while t < t1 and steps < max_steps:
                steps += 1
                last = t + h >= t1
                if last:
                    h = t1 - t
                for s in range(6):
                    for i in range(dim):
                        total = 0.0
                        for j in range(s + 1):
                            total += stages[s, j] * k[j, i]
                        z[i] = y[i] + h * total
                    rate(z, p, k[s + 1])
                square = 0.0
                for i in range(dim):
                    error = 0.0
                    for j in range(7):
                        error += weights[j] * k[j, i]
                    error *= h / (atol + rtol * max(abs(y[i]), abs(z[i])))
                    square += error * error / dim
                factor = 0.9 * square**-0.1 if square > 0 else 10.0
                if square < 1:
                    factor = min(max(factor, 1.0), 10.0)
                    t = t1 if last else t + h
                    for i in range(dim):
                        y[i] = z[i]
                        k[0, i] = k[6, i]
                else:
                    factor = min(max(factor, 0.2), 0.9)
                h *= factor
        return end

    return solve


def sg_map(n, m, lanes=32):
    """The stop-gradient map with the lane loop innermost, as in `sg_map.c`."""
    numba = import_module("numba")

    @numba.njit(fastmath=True, parallel=True)
    def run(a_all, b_all, x_all, y_all, lr, decay, steps):
        blocks, zero = a_all.shape[0] // lanes, lr - lr  # zero in the arrays' precision
        for block in numba.prange(blocks):
            a, r = np.empty((n, m, lanes), a_all.dtype), np.empty((n, m, lanes), a_all.dtype)
            p, da = np.empty((n, m, lanes), a_all.dtype), np.empty((n, m, lanes), a_all.dtype)
            b, db = np.empty((n, n, lanes), a_all.dtype), np.empty((n, n, lanes), a_all.dtype)
            x, y = np.empty((m, m, lanes), a_all.dtype), np.empty((m, m, lanes), a_all.dtype)
            for lane in range(lanes):
                trial = block * lanes + lane
                a[:, :, lane], b[:, :, lane] = a_all[trial], b_all[trial]
                x[:, :, lane], y[:, :, lane] = x_all[trial], y_all[trial]
            for _ in range(steps):
                for lane in range(lanes):  # the small loops are unrolled, this one becomes vectors
                    for i in range(n):
                        for j in range(m):
                            total = zero
                            for k in range(n):
                                total += b[i, k, lane] * a[k, j, lane]
                            p[i, j, lane] = total
                    for i in range(n):
                        for j in range(m):
                            total = zero
                            for k in range(m):
                                total += p[i, k, lane] * x[k, j, lane] - a[i, k, lane] * y[k, j, lane]
                            r[i, j, lane] = total
                    for i in range(n):
                        for j in range(m):
                            total = zero
                            for k in range(n):
                                total += b[k, i, lane] * r[k, j, lane]
                            da[i, j, lane] = total
                    for i in range(n):
                        for j in range(n):
                            total = zero
                            for k in range(m):
                                total += r[i, k, lane] * a[j, k, lane]
                            db[i, j, lane] = total
                    for i in range(n):
                        for j in range(m):
                            a[i, j, lane] -= lr * (da[i, j, lane] + decay * a[i, j, lane])
                        for j in range(n):
                            b[i, j, lane] -= lr * (db[i, j, lane] + decay * b[i, j, lane])
            for lane in range(lanes):
                a_all[block * lanes + lane], b_all[block * lanes + lane] = a[:, :, lane], b[:, :, lane]

    return run
