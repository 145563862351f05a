#include <stdio.h>
#include <stdint.h>

static int popcount(unsigned int x) {
    int n = 0;
    while (x) {
        x &= x - 1;
        n++;
    }
    return n;
}

static uint32_t rotate(uint32_t x, int by) { return (x << by) | (x >> (32 - by)); }

static unsigned long long wide(void) { return 1ULL << 40 | 0x80000000 | 0777 | 10u; }

static int compare(void) {
    int negative = -1;
    int r = 0;
    if (negative < 0x80000000) r += 1;
    if (negative < 2147483647) r += 2;
    if (-1 < 10u) r += 4;
    if (0x7fffffff > 2147483646) r += 8;
    return r;
}

int main(void) {
    printf("%d %d %u\n", popcount(255), popcount(10), rotate(0x80000001u, 4));
    printf("%llu %d %d\n", wide(), compare(), ~5 & 15 ^ 3);
    printf("%d %d\n", 7 - -3, -10 % 3);
    return 0;
}
