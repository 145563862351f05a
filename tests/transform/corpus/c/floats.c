#include <stdio.h>
#include <math.h>

static double newton(double x) {
    double guess = x / 2;
    double previous = 0.0;
    for (int i = 0; i < 50; i++) {
        previous = guess;
        guess = (guess + x / guess) / 2;
        if (guess == previous) break;
    }
    return guess;
}

static int not_a_number(double x) {
    int r = 0;
    if (x < 1.0) r += 1; else r += 2;
    if (x >= 1.0) r += 10; else r += 20;
    if (x != x) r += 100; else r += 200;
    if (!(x == x)) r += 1000;
    return r;
}

int main(void) {
    printf("%.6f %.3f %.2f\n", newton(2), 10 / 4 * 1.0, 10 / 4.0);
    printf("%d %d %d\n", not_a_number(0.5), not_a_number(2.0), not_a_number(NAN));
    printf("%g %g\n", 1e3, 5.f / 2);
    return 0;
}
