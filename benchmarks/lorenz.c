#define DIM 3
#include "tsit5.h"
static void rate(const double *y, const double *p, double *dy)
{
    dy[0] = 10.0 * (y[1] - y[0]);
    dy[1] = p[0] * y[0] - y[1] - y[0] * y[2];
    dy[2] = y[0] * y[1] - 8.0 / 3.0 * y[2];
}
void lorenz(int trials, const double *rho, double *end)
{
#pragma omp parallel for schedule(dynamic, 256)
    for (int t = 0; t < trials; t++) {
        double *y = end + 3 * t;
        y[0] = 1; y[1] = 0; y[2] = 0;
        tsit5(y, rho + t, 1.0, 0.01, 1e-6, 1e-6, 1000000);
    }
}
