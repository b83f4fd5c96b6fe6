"""The plain adaptive Tsit5 in numba: one trial after the other, threads over trials."""

import numpy as np


def lorenz(numba, rtol, atol):
    from jaxdyn.ensemble import tableaux

    stages = np.zeros((6, 6))
    for k, row in enumerate(tableaux.TSIT5_A):
        stages[k, : len(row)] = row
    weights = np.array(tableaux.TSIT5_ERROR)

    @numba.njit(fastmath=True)
    def rate(y, rho, out):
        out[0] = 10.0 * (y[1] - y[0])
        out[1] = rho * y[0] - y[1] - y[0] * y[2]
        out[2] = y[0] * y[1] - 8.0 / 3.0 * y[2]

    @numba.njit(fastmath=True, parallel=True)
    def solve(rho):
        end = np.empty((rho.size, 3))
        for trial in numba.prange(rho.size):
            y, z, k = np.array([1.0, 0.0, 0.0]), np.empty(3), np.empty((7, 3))
            t, h = 0.0, 0.01
            rate(y, rho[trial], k[0])
            while t < 1.0:
                last = t + h >= 1.0
                if last:
                    h = 1.0 - t
                for s in range(6):
                    for i in range(3):
                        total = 0.0
                        for j in range(s + 1):
                            total += stages[s, j] * k[j, i]
                        z[i] = y[i] + h * total
                    rate(z, rho[trial], k[s + 1])
                square = 0.0
                for i in range(3):
                    error = 0.0
                    for j in range(7):
                        error += weights[j] * k[j, i]
                    error *= h / (atol + rtol * max(abs(y[i]), abs(z[i])))
                    square += error * error / 3
                factor = 0.9 * square**-0.1 if square > 0 else 10.0
                if square < 1:
                    factor = min(max(factor, 1.0), 10.0)
                    t = 1.0 if last else t + h
                    for i in range(3):
                        y[i] = z[i]
                        k[0, i] = k[6, i]
                else:
                    factor = min(max(factor, 0.2), 0.9)
                h *= factor
            end[trial] = y
        return end

    return solve
