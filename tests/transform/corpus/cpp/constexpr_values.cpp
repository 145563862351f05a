#include <array>
#include <cstdio>

constexpr int square(int n) { return n * n; }
constexpr int sum(int n) { int s = 0; for (int i = 1; i <= n; i++) s += i; return s; }
static_assert(square(4) == 16, "square");
constexpr std::array<int, 3> values{1, 2, 30};
static const int limit = 10;
static int buffer[square(2)];

int main() {
    constexpr int ten = sum(4);
    int local[limit] = {0};
    std::array<int, ten> more{};
    more[9] = 5;
    std::printf("%d %d %zu %d\n", ten, values[2], more.size(), more[9]);
    std::printf("%zu %zu\n", sizeof(local) / sizeof(int), sizeof(buffer) / sizeof(buffer[0]));
    char narrow{10};
    unsigned char small = 200;
    std::printf("%d %d %d\n", narrow, small, 0b101 + 1'000);
}
