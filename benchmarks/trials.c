// The m = 1 experiment, n = 2: one trial after the other, each until its own end, threads over trials.
// Like the Python step it follows E and F along the way. Status: 1 converged, 2 out of steps, 3 diverged.
#include <math.h>
#define N 2

static double energy(const double *a, const double b[N][N], const double *c, double rho, double tau, double zeta,
                     double decay)
{
    double e = 0, size = 0;
    for (int i = 0; i < N; i++) {
        double p = 0;
        for (int j = 0; j < N; j++) { p += b[i][j] * a[j]; size += b[i][j] * b[i][j]; }
        size += a[i] * a[i];
        e += p * p * rho / 2 - p * c[i] * tau + c[i] * c[i] * zeta / 2;
    }
    return e + decay * size / 2;
}

static inline void watch(double *lowest, double *rise, double value)
{
    *lowest = fmin(*lowest, value);
    *rise = fmax(*rise, value - *lowest);
}

void trials(long count, int ema, const double *draws, double ratio, double ema_decay, double tolerance, long max_steps,
            double *state, long *steps, signed char *status)
{
#pragma omp parallel for schedule(dynamic, 16)
    for (long t = 0; t < count; t++) {
        double rho = draws[4 * t], tau = draws[4 * t + 1], decay = draws[4 * t + 2], lr = draws[4 * t + 3];
        double zeta = fmax(rho, tau * tau / rho), keep = ema ? 1 - ema_decay : 1;
        double *own = state + 8 * t, a[N], b[N][N], c[N];
        double low[2] = {INFINITY, INFINITY}, rise[2] = {0, 0};
        for (int i = 0; i < N; i++) { a[i] = c[i] = own[i]; for (int j = 0; j < N; j++) b[i][j] = own[N + N * i + j]; }
        signed char ended = 2;
        long s = 0;
        while (s < max_steps) {
            watch(&low[0], &rise[0], energy(a, b, a, rho, tau, zeta, decay));
            watch(&low[1], &rise[1], energy(a, b, c, rho, tau, zeta, decay));
            double r[N], na[N], nb[N][N], nc[N], moved = 0, size = 0;
            for (int i = 0; i < N; i++) {
                r[i] = -c[i] * tau;
                for (int j = 0; j < N; j++) r[i] += b[i][j] * a[j] * rho;
            }
            for (int i = 0; i < N; i++) {
                double pull = 0;
                for (int j = 0; j < N; j++) pull += b[j][i] * r[j];
                na[i] = a[i] - lr * (pull + decay * a[i]);
                nc[i] = c[i] + keep * (na[i] - c[i]);
                for (int j = 0; j < N; j++) {
                    nb[i][j] = b[i][j] - lr * (ratio * r[i] * a[j] + decay * b[i][j]);
                    moved += (nb[i][j] - b[i][j]) * (nb[i][j] - b[i][j]);
                    size += nb[i][j] * nb[i][j];
                }
                moved += (na[i] - a[i]) * (na[i] - a[i]) + (ema ? (nc[i] - c[i]) * (nc[i] - c[i]) : 0);
                size += na[i] * na[i] + (ema ? nc[i] * nc[i] : 0);
            }
            if (!(size < 1e300)) { ended = 3; break; }
            for (int i = 0; i < N; i++) { a[i] = na[i]; c[i] = nc[i]; for (int j = 0; j < N; j++) b[i][j] = nb[i][j]; }
            s++;
            if (sqrt(moved) < tolerance * lr * (1 + sqrt(size))) { ended = 1; break; }
        }
        for (int i = 0; i < N; i++) { own[i] = a[i]; for (int j = 0; j < N; j++) own[N + N * i + j] = b[i][j]; own[6 + i] = rise[i]; }
        steps[t] = s;
        status[t] = ended;
    }
}
