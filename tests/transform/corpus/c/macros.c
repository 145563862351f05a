#include <stdio.h>
#define SQUARE(x) ((x) * (x))
#define SHOW(x) printf(#x " = %d\n", (x))
#define JOIN(a, b) a##b
#define LIMIT 10
#define SWAP(type, a, b) \
    do {                 \
        type swapped = a; \
        a = b;           \
        b = swapped;     \
    } while (0)

static int JOIN(com, puted)(int value) { return value + LIMIT; }

int main(void) {
    int first = 3;
    int second = 10;
    int xy = 1;
    SWAP(int, first, second);
    SHOW(first + 10);
    SHOW(second);
    SHOW( first*2 );
    printf("%d %d %d\n", SQUARE(first + 1), JOIN(x, y), computed(5));
#if LIMIT > 5 // more than 5
    printf("big %d\n", LIMIT);
#else
    printf("small\n");
#endif
    return 0;
}
