#include <cstdio>

static int kind(int) { return 1; }
static int kind(long) { return 2; }
static int kind(unsigned) { return 3; }
static int kind(double) { return 4; }
static int kind(const char *) { return 5; }
static int kind(char) { return 6; }
static int pick(int n, int m = 3) { return n * m; }
static int pick(const char *s) { return s == nullptr ? -1 : s[0]; }

int main() {
    std::printf("%d%d%d%d%d%d\n", kind(10), kind(10L), kind(10u), kind(1.0), kind("10"), kind('1'));
    std::printf("%d%d%d\n", kind(2147483647), kind(3000000000), kind(0x10));
    const char *none = 0;
    std::printf("%d %d %d %d\n", pick(4), pick(4, 5), pick(none), pick("a"));
}
