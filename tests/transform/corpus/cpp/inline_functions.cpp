#include <cstdio>

inline int half(int n) { return n >> 1; }
static inline bool even(int n) noexcept { return (n & 1) == 0; }
auto trailing(int n) -> int { return n + 1; }
static int defaulted(int a, int b = half(10), bool c = true) { return c ? a + b : a - b; }
int declared(int first, int);
int declared(int first, int second) { return first - second; }

int main() {
    int (*pointer)(int) = half;
    int (&reference)(int) = trailing;
    std::printf("%d %d %d %d\n", pointer(9), reference(9), even(4), defaulted(1));
    std::printf("%d %d\n", defaulted(1, 2, false), declared(10, 3));
}
