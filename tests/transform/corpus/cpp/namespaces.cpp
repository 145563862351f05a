#include <cstdio>

namespace shapes {
    static int area(int w, int h) { return w * h; }
    namespace round { static int area(int r) { return 3 * r * r; } }
    struct box { int w, h; };
    static int area(const box &b) { return area(b.w, b.h); }
}
namespace { int hidden(int n) { return n + 1; } }
using shapes::round::area;

static int sum(int n) { using namespace shapes; return area(n, 2) + round::area(n); }

int main() {
    shapes::box b{3, 4};
    std::printf("%d %d %d %d\n", shapes::area(b), area(2), sum(5), ::hidden(9));
}
