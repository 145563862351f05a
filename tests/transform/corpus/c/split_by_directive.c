#include <stdio.h>
#define MODE 2

/* Balanced only after the preprocessor. */
static int mode(int n) {
    int r = n;
#if MODE == 1
    for (int i = 0; i < n; i++) {
        r += i;
#else
    while (n > 0) {
        r += 2;
        n--;
#endif
    }
    return r
#if MODE > 1
        + 10
#endif
        ;
}

int main(void) {
    printf("%d %d\n", mode(3), mode(0));
    return 0;
}
