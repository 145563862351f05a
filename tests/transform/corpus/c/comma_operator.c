#include <stdio.h>

static int walk(int n) {
    int i, j, steps = 0;
    for (i = 0, j = n; i < j; i++, j -= 2)
        steps += (i, j);
    return steps * 100 + i * 10 + j;
}

static int assigns(int n) {
    int a, b;
    a = b = n;
    while (a--, b > 0) b -= 3;
    return a * 50 + b;
}

int main(void) {
    printf("%d %d %d\n", walk(0), walk(9), walk(20));
    printf("%d %d\n", assigns(7), assigns(9));
    return 0;
}
