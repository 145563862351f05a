#include <cstdio>

static void bump(int &x, int by = 10) { x += by; }
static int &larger(int &a, int &b) { if (a > b) return a; else return b; }

int main() {
    int x = 1, y = 5;
    int &alias = x;
    bump(alias);
    bump(y, 2);
    larger(x, y) = 0;
    const int &bound = 7;
    std::printf("%d %d %d\n", x, y, bound);
    for (int i = 0; i < 3; ++i) { int &z = i % 2 ? x : y; z += i; }
    std::printf("%d %d\n", x, y);
}
