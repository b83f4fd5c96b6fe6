// Adaptive Tsit5 for one trial of dimension DIM: the plain program a C programmer would write.
#include <math.h>
static const double A[6][6] = {
    {0.161},
    {-0.008480655492356989, 0.335480655492357},
    {2.8971530571054935, -6.359448489975075, 4.3622954328695815},
    {5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525},
    {5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383},
    {0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774}};
static const double E[7] = {0.0017800110522257773, 0.0008164344596567463, -0.007880878010261994, 0.1447110071732629,
                            -0.5823571654525552, 0.45808210592918686, -0.015151515151515152};
static void rate(const double *y, const double *p, double *dy);

static long tsit5(double *y, const double *p, double t1, double h, double rtol, double atol, long max_steps)
{
    double k[7][DIM], z[DIM], t = 0;
    long steps = 0;
    rate(y, p, k[0]);
    while (t < t1 && steps++ < max_steps) {
        int last = t + h >= t1;
        if (last) h = t1 - t;
        for (int s = 0; s < 6; s++) {
            for (int i = 0; i < DIM; i++) {
                double sum = 0;
                for (int j = 0; j <= s; j++) sum += A[s][j] * k[j][i];
                z[i] = y[i] + h * sum;
            }
            rate(z, p, k[s + 1]);
        }
        double square = 0;
        for (int i = 0; i < DIM; i++) {
            double e = 0;
            for (int j = 0; j < 7; j++) e += E[j] * k[j][i];
            e *= h / (atol + rtol * fmax(fabs(y[i]), fabs(z[i])));
            square += e * e;
        }
        square /= DIM;
        int stands = square < 1;
        double factor = 0.9 * pow(square, -0.1);
        if (!(factor < 10)) factor = square == square ? 10 : 0.2;
        if (stands) {
            if (factor < 1) factor = 1;
            t = last ? t1 : t + h;
            for (int i = 0; i < DIM; i++) { y[i] = z[i]; k[0][i] = k[6][i]; }
        } else {
            if (factor > 0.9) factor = 0.9;
            if (factor < 0.2) factor = 0.2;
        }
        h *= factor;
    }
    return steps;
}
