#include <stdio.h>

static int calls;
static int step(int r) { calls++; printf("s%d ", r); return r; }

static int conditions(int a, int b) {
    if (step(a) && step(b)) return 1;
    else if (step(!a) || step(b)) return 2;
    return 3;
}

static int loops(void) {
    int n = 0;
    for (step(9); step(n < 2); step(8)) n++;
    while (step(n > 0)) n--;
    return n;
}

int main(void) {
    for (int i = 0; i < 4; i++) printf("-> %d\n", conditions(i & 1, i >> 1));
    printf("%d\n", loops());
    return calls;
}
