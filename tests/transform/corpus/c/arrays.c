#include <stdio.h>
#define SIZE 8

static int sorted[SIZE];

static void insertion(int *values, int n) {
    for (int i = 1; i < n; i++) {
        int key = values[i];
        int j = i - 1;
        while (j >= 0 && values[j] > key) {
            values[j + 1] = values[j];
            j--;
        }
        values[j + 1] = key;
    }
}

static int largest(int matrix[2][3]) {
    int best = matrix[0][0];
    for (int r = 0; r < 2; r++)
        for (int c = 0; c < 3; c++)
            if (matrix[r][c] > best) best = matrix[r][c];
    return best;
}

int main(void) {
    int values[10] = {9, 3, 7, 1, 8, 2};
    int grid[2][3] = {{1, 50, 3}, {4, 5, 6}};
    int designated[5] = {[2] = 7, [4] = 9};
    insertion(values, 6);
    for (int i = 0; i < 10; i++) printf("%d ", values[i]);
    for (int i = 0; i < SIZE; i++) sorted[i] = i * i;
    printf("%d %d %d\n", sorted[7], largest(grid), designated[2] + designated[4]);
    printf("%zu %zu\n", sizeof(values) / sizeof(values[0]), sizeof grid);
    return 0;
}
