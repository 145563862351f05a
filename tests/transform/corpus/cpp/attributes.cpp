#include <cstdio>

[[nodiscard]] static int checked(int n) { return n + 1; }
static int unused([[maybe_unused]] int hint, int n) { return n; }
struct alignas(16) Aligned { int value; };

static int likely(int n) {
    if (n > 3) [[likely]] return 1;
    else [[unlikely]] return 2;
}

int main() {
    [[maybe_unused]] int spare = 10;
    int kept = checked(4);
    std::printf("%d %d %zu %d%d\n", kept, unused(1, 2), alignof(Aligned), likely(1), likely(9));
}
