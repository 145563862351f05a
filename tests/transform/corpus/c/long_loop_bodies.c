#include <stdio.h>

static int collatz(int n, int *peak) {
    int steps = 0;
    *peak = n;
    for (; n != 1; steps++) {
        if (n % 2 == 0) {
            n /= 2;
        } else {
            n = 3 * n + 1;
            if (n > *peak) {
                *peak = n;
            }
        }
    }
    return steps;
}

static int fizz(int n) {
    int seen = 0;
    for (int i = 1; i <= n; i++) {
        if (i % 15 == 0) { printf("fizzbuzz "); seen += 3; }
        else if (i % 5 == 0) { printf("buzz "); seen += 2; }
        else if (i % 3 == 0) { printf("fizz "); seen++; }
        else printf("%d ", i);
    }
    printf("\n");
    return seen;
}

int main(void) {
    int peak;
    int steps = collatz(27, &peak);
    printf("%d %d\n", steps, peak);
    return fizz(16);
}
