#include <assert.h>
#include <stdio.h>
#define CHECK(condition) check((condition), #condition)

static int failures;

static void check(int ok, const char *text) {
    if (!ok) { failures++; printf("failed: %s\n", text); }
}

static int half(int n) { assert(n % 2 == 0); return n / 2; }

int main(void) {
    int ten = 10;
    CHECK(half(ten) == 5);
    CHECK(half(ten) == 4);
    CHECK(ten>3 && ten<5);
    printf("%d %s\n", failures, __func__);
    return failures;
}
