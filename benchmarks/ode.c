// The same integrator over many trials, threads over trials: Lorenz' system (default) or -DSTOP_GRADIENT (m = 1, n = 2).
#ifdef STOP_GRADIENT
#define DIM 6
#define PARAMS 3
#else
#define DIM 3
#define PARAMS 1
#endif
#include "tsit5.h"

static void rate(const double *y, const double *p, double *dy)
{
#ifdef STOP_GRADIENT
    double r[2];
    for (int i = 0; i < 2; i++) r[i] = (y[2 + 2 * i] * y[0] + y[3 + 2 * i] * y[1]) * p[0] - p[1] * y[i];
    for (int j = 0; j < 2; j++) dy[j] = -(y[2 + j] * r[0] + y[4 + j] * r[1]) - p[2] * y[j];
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) dy[2 + 2 * i + j] = -r[i] * y[j] - p[2] * y[2 + 2 * i + j];
#else
    dy[0] = 10.0 * (y[1] - y[0]);
    dy[1] = p[0] * y[0] - y[1] - y[0] * y[2];
    dy[2] = y[0] * y[1] - 8.0 / 3.0 * y[2];
#endif
}

// y: [trials][DIM], starts in and ends out; p: [trials][PARAMS].
void solve(long trials, double *y, const double *p, double t1, double rtol, double atol, long max_steps)
{
#pragma omp parallel for schedule(dynamic, 64)
    for (long t = 0; t < trials; t++) tsit5(y + DIM * t, p + PARAMS * t, t1, 0.01, rtol, atol, max_steps);
}
