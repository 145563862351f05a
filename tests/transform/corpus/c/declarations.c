#include <stdio.h>

static int order(void) {
    int a = 1;
    int b = 2;
    int c;
    char d = 'x';
    const char *e = "e = 1; int f;";
    double g = 2.5;
    int h[3] = {0};
    int i = a;
    int j = i + 1;
    unsigned long k = 10UL;
    long *l = NULL;
    c = 3;
    return a + b * 10 + c * 100 + d + e[0] + (int)g + h[1] + i + j + (int)k + (l == NULL);
}

static int sizes(void) {
    int n = 4;
    int length = sizeof n;
    char n2 = 1;
    static int seen = 0;
    static int twice = 0;
    seen++;
    twice += 2;
    return n + length + n2 + seen + twice;
}

int main(void) {
    printf("%d %d %d\n", order(), sizes(), sizes());
    return 0;
}
