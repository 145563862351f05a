#include <stdio.h>

static int counter;
int limit = 3;
static const char *const names[] = {"one", "two", "three"};
extern int limit;

static int tick(void) {
    static int calls = 0;
    calls++;
    counter += calls;
    return counter;
}

static int reached(void) { return counter >= limit; }

int main(void) {
    while (!reached()) printf("tick %d\n", tick());
    limit = 20;
    for (; !reached();) tick();
    printf("%d %s\n", counter, names[limit % 3]);
    return 0;
}
