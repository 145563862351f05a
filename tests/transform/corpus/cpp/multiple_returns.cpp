#include <cstdio>
#include <optional>
#include <tuple>

static std::optional<int> root(int n) { for (int i = 0; i * i <= n; i++) { if (i * i == n) return i; } return std::nullopt; }
static std::tuple<int, char, double> triple(int n) { return {n, 'a' + n, n / 2.0}; }

int main() {
    if (auto r = root(49)) std::printf("%d ", *r); else std::printf("none ");
    if (auto r = root(50)) std::printf("%d ", *r); else std::printf("none ");
    auto [a, b, c] = triple(3);
    std::printf("%d %c %.1f\n", a, b, c);
}
