#include <stdio.h>

int value = 7;

static int shadow(int n) {
    int value = 1;
    {
        int value = n;
        for (int value = 0; value < 3; value++) {
            int value = 5;
            n += value;
        }
        n += value;
    }
    return n + value;
}

static int outer_then_inner(int i) {
    int r = i;
    for (int i = 0; i < 4; i++) r += i;
    if (r > 5) { int r = 100; i += r; }
    return r * 1000 + i + value;
}

static int self(void) {
    int n = 3;
    { int m = n; int n = m + 1; value += n; }
    return n;
}

int main(void) {
    printf("%d %d\n", shadow(2), shadow(10));
    printf("%d\n", outer_then_inner(6));
    printf("%d %d\n", self(), value);
    return 0;
}
