#include <stdio.h>

static int parse(const char *s) {
    int state = 0;
    int value = 0;
again:
    if (*s == 0) goto done;
    if (*s < '0' || *s > '9') goto fail;
    value = value * 10 + (*s - '0');
    s++;
    if (state++ < 100) goto again;
fail:
    value = -1;
done:
    return value;
}

static int find(int target) {
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 5; j++)
            if (i * j == target) {
                target = i * 10 + j;
                goto found;
            }
    return -1;
found:
    return target;
}

int main(void) {
    printf("%d %d %d\n", parse("120"), parse("1x"), parse(""));
    printf("%d %d\n", find(6), find(7));
    return 0;
}
