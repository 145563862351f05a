#include <stdio.h>
#include <stdlib.h>

static void swap(int *a, int *b) { int t = *a; *a = *b; *b = t; }

static int *make(int n, int start) {
    int *p = malloc(n * sizeof(int));
    int *q = p;
    while (q < p + n) *q++ = start++;
    return p;
}

static int sum_until(const int *p, int stop) {
    int s = 0;
    while (*p != stop)
        s += *p++;
    return s;
}

int main(void) {
    int x = 1;
    int y = 2;
    int **pp;
    int *p = &x;
    pp = &p;
    **pp = 40;
    swap(&x, &y);
    printf("%d %d %d\n", x, y, *p);
    p = 0;
    if (!p) printf("null\n");
    else printf("set\n");
    int *all = make(6, 10);
    printf("%d %d\n", sum_until(all, 13), 2[all]);
    free(all);
    return x;
}
