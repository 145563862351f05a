#include <stdio.h>
#include <stddef.h>

struct pair { char tag; int value; };
static int twice(value) int value; { return value * 2; }

static int nested_calls(int n) {
    return twice(twice(n) + twice(n ? 1 : 0));
}

int main(void) {
    struct pair pairs[3] = {{'a', 1}, {'b', 10}, {'c', 100}};
    struct pair *value = pairs;
    int total = 0;
    for (; value < pairs + 3; value++) total += value->value;
    printf("%d %d %d\n", total, nested_calls(3), nested_calls(0));
    printf("%d\n", (int)offsetof(struct pair, value) > 0);
    printf("%d\n", (int)sizeof(struct pair) == 8);
    return 0;
}
