#include <stdio.h>
#include <stdlib.h>

typedef int (*operation)(int, int);

static int plus(int a, int b) { return a + b; }
static int times(int a, int b) { return a * b; }
static int apply(int (*f)(int left, int right), int a, int b) { return f(a, b); }
static operation pick(int which) { return which ? plus : times; }

static int by_value(const void *left, const void *right) {
    int a = *(const int *)left, b = *(const int *)right;
    if (a < b) return -1; else if (a > b) return 1;
    return 0;
}

int main(void) {
    int values[] = {5, 3, 9, 1};
    operation table[2] = {plus, times};
    qsort(values, 4, sizeof values[0], by_value);
    for (int i = 0; i < 4; i++) printf("%d ", values[i]);
    printf("%d %d %d %d\n", apply(plus, 2, 3), apply(&times, 2, 3), pick(0)(4, 5), table[1](6, 7));
    return 0;
}
