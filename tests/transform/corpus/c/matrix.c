#include <stdio.h>
enum { N = 3 };

static void multiply(int a[N][N], int b[N][N], int out[N][N]) {
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            out[i][j] = 0;
            for (int k = 0; k < N; k++)
                out[i][j] += a[i][k] * b[k][j];
        }
}

static int trace(int m[N][N]) {
    int t = 0, i = 0;
    while (i < N) { t += m[i][i]; i++; }
    return t;
}

int main(void) {
    int a[N][N] = {{1, 2, 3}, {4, 5, 6}, {7, 8, 9}};
    int b[N][N] = {{0, 1, 0}, {1, 0, 0}, {0, 0, 1}};
    int c[N][N];
    multiply(a, b, c);
    printf("%d %d %d %d\n", c[0][0], c[1][2], c[2][1], trace(c));
    return 0;
}
