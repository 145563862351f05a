#include <stdio.h>

static int dangle(int a, int b) {
    int r = 0;
    if (a)
        if (b) r = 1;
        else r = 2;
    if (a) { if (b) r += 10; } else r += 20;
    if (!a) if (!b) r += 100; else r += 200; else r += 300;
    return r;
}

static int nested(int a, int b, int c) {
    if (a) for (int i = 0; i < 2; i++) if (b) c += i; else c -= i;
    else while (c > 3) if (b) c -= 2; else c--;
    return c;
}

int main(void) {
    for (int a = 0; a < 2; a++)
        for (int b = 0; b < 2; b++)
            printf("%d %d\n", dangle(a, b), nested(a, b, 7));
    return 0;
}
