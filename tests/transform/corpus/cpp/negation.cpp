#include <cstdio>

struct Odd {
    int n;
    operator bool() const { return n != 0; }
    bool operator!() const { return n == 7; }
};

static int test(Odd o) { if (o) return 1; else return 2; }
static int not_test(Odd o) { int r = 0; if (!o) r = 10; else r = 20; return r; }

int main() {
    std::printf("%d %d %d\n", test({0}), test({7}), test({3}));
    std::printf("%d %d %d\n", not_test({0}), not_test({7}), not_test({3}));
}
