#include <stdio.h>

struct size { int width, height; };

static int area(const struct size *s) { return s->width * s->height; }
static int sum(const int *v, int n) { int t = 0; while (n--) t += v[n]; return t; }

int main(void) {
    printf("%d\n", area(&(struct size){ .width = 3, .height = 14 }));
    printf("%d\n", sum((int[]){1, 2, 3, 10}, 4));
    int n = 4;
    int sized[n];
    for (int i = 0; i < n; i++) sized[i] = i + 1;
    printf("%d %d\n", sum(sized, n), (int)(sizeof sized / sizeof(int)));
    return 0;
}
