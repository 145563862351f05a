#include <stdio.h>
#define MODE 2

static int mode(int n) {
    int r = n;
#if MODE == 1
    for (int i = 0; i < n; i++) {
        r += i;
    }
#elif MODE == 2
    while (n > 0) {
        r += 2;
        n--;
    }
#else
    r = 10;
#endif
    return r;
}

static int simple(int n) {
    if (n > 2) {
#ifdef MODE
        n += MODE;
#endif
    } else {
        n -= 1;
    }
#if MODE > 1
    n += 10;
#endif
    return n;
}

int main(void) {
    printf("%d %d %d\n", mode(3), simple(1), simple(5));
    return 0;
}
