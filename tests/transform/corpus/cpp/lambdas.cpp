#include <cstdio>

template <class F> static int twice(F f, int x) { return f(f(x)); }

int main() {
    int base = 10;
    int count = 0;
    auto add = [base](int x) { return x + base; };
    auto tick = [&count] { return ++count; };
    auto all = [&](int n) { for (int i = 0; i < n; i++) { if (i == 2) continue; tick(); } return count; };
    auto init = [total = base * 2](int x) mutable { total += x; return total; };
    std::printf("%d %d %d\n", twice(add, 1), tick(), all(5));
    std::printf("%d %d\n", init(1), init(2));
    for (int i = 0; i < 3; i++) {
        auto skip = [](int n) { while (n > 0) { n -= 3; if (n == 1) continue; } return n; };
        count += skip(i + 5);
    }
    std::printf("%d\n", [=](int base) -> int { return base + count; }(100));
    return 0;
}
