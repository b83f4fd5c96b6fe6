// The limit line: the stop-gradient map for n x m, structure of arrays, blocks of lanes, all steps of a block in L1.
#include <stdint.h>
#include <string.h>
#ifndef LANES
#define LANES 32
#endif
#ifndef REAL
#define REAL double
#endif
void sg_map(long trials, long steps, REAL lr, REAL decay, const REAL *x, const REAL *y, REAL *a_, REAL *b_)
{
#pragma omp parallel for schedule(static)
    for (long block = 0; block < trials / LANES; block++) {
        REAL a[N][M][LANES] __attribute__((aligned(64))), b[N][N][LANES] __attribute__((aligned(64)));
        REAL xx[M][M][LANES] __attribute__((aligned(64))), yx[M][M][LANES] __attribute__((aligned(64)));
        REAL r[N][M][LANES] __attribute__((aligned(64))), p[N][M][LANES] __attribute__((aligned(64)));
        REAL da[N][M][LANES] __attribute__((aligned(64))), db[N][N][LANES] __attribute__((aligned(64)));
        for (int l = 0; l < LANES; l++) {
            long t = block * LANES + l;
            for (int i = 0; i < N; i++) for (int j = 0; j < M; j++) a[i][j][l] = a_[(t * N + i) * M + j];
            for (int i = 0; i < N; i++) for (int j = 0; j < N; j++) b[i][j][l] = b_[(t * N + i) * N + j];
            for (int i = 0; i < M; i++) for (int j = 0; j < M; j++) { xx[i][j][l] = x[(t * M + i) * M + j]; yx[i][j][l] = y[(t * M + i) * M + j]; }
        }
        for (long s = 0; s < steps; s++) {
            for (int l = 0; l < LANES; l++) {
#define SUM(out, n, u, v) { REAL sum = 0; for (int k = 0; k < n; k++) sum += (u) * (v); out = sum; }
                for (int i = 0; i < N; i++) for (int j = 0; j < M; j++) SUM(p[i][j][l], N, b[i][k][l], a[k][j][l])
                for (int i = 0; i < N; i++) for (int j = 0; j < M; j++) SUM(r[i][j][l], M, p[i][k][l], xx[k][j][l])
                for (int i = 0; i < N; i++) for (int j = 0; j < M; j++) { REAL t; SUM(t, M, a[i][k][l], yx[k][j][l]) r[i][j][l] -= t; }
                for (int i = 0; i < N; i++) for (int j = 0; j < M; j++) SUM(da[i][j][l], N, b[k][i][l], r[k][j][l])
                for (int i = 0; i < N; i++) for (int j = 0; j < N; j++) SUM(db[i][j][l], M, r[i][k][l], a[j][k][l])
                for (int i = 0; i < N; i++) for (int j = 0; j < M; j++) a[i][j][l] -= lr * (da[i][j][l] + decay * a[i][j][l]);
                for (int i = 0; i < N; i++) for (int j = 0; j < N; j++) b[i][j][l] -= lr * (db[i][j][l] + decay * b[i][j][l]);
            }
        }
        for (int l = 0; l < LANES; l++) {
            long t = block * LANES + l;
            for (int i = 0; i < N; i++) for (int j = 0; j < M; j++) a_[(t * N + i) * M + j] = a[i][j][l];
            for (int i = 0; i < N; i++) for (int j = 0; j < N; j++) b_[(t * N + i) * N + j] = b[i][j][l];
        }
    }
}
