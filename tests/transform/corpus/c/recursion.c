#include <stdio.h>

static int is_even(int n);
static int is_odd(int n) { return n == 0 ? 0 : is_even(n - 1); }
static int is_even(int n) { return n == 0 ? 1 : is_odd(n - 1); }

static long factorial(int n) {
    if (n <= 1) return 1;
    else return n * factorial(n - 1);
}

static int ackermann(int m, int n) {
    if (m == 0) return n + 1;
    if (n == 0) return ackermann(m - 1, 1);
    return ackermann(m - 1, ackermann(m, n - 1));
}

int main(void) {
    printf("%d %d %ld %d\n", is_even(10), is_odd(10), factorial(12), ackermann(2, 3));
    return 0;
}
