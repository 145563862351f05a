#include <stdio.h>

static int max3(int a, int b, int c) {
    return a > b ? (a > c ? a : c) : b > c ? b : c;
}

static const char *plural(int n) { return n == 1 ? "" : "s"; }

static int effects(int n) {
    int left = 0, right = 0;
    for (int i = 0; i < n; i++) i % 3 ? left++ : (right += 2);
    return left * 100 + right;
}

int main(void) {
    printf("%d %d %d\n", max3(1, 2, 3), max3(3, 2, 1), max3(1, 3, 2));
    printf("item%s item%s %d\n", plural(1), plural(2), effects(10));
    return 0;
}
