#include <stdio.h>

static int table(int rows, int columns) {
    int total = 0;
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < columns; j++) {
            if (j == i) continue;
            total += i * 10 + j;
        }
    }
    return total;
}

static int triangle(int n) {
    int i, j, count = 0;
    for (i = 1; i <= n; ++i)
        for (j = 1; j <= i; ++j)
            count++;
    return count + i + j;
}

int main(void) {
    int a = 3;
    int b = 4;
    printf("%d %d\n", table(a, b), table(5, 2));
    printf("%d %d\n", triangle(0), triangle(6));
    return 0;
}
