#include <cstdint>
#include <cstdio>

union Value { std::int32_t whole; float real; };

static int bits(unsigned x) { int n = 0; for (; x; x &= x - 1) ++n; return n; }

int main() {
    Value v;
    v.real = 1.0f;
    unsigned long long wide = static_cast<unsigned long long>(1) << 40;
    int truncated = static_cast<int>(10.7);
    char c = (char)('a' + 2);
    const int fixed = 5;
    int copy = const_cast<int &>(fixed);
    std::printf("%x %llu %d %c %d %d\n", v.whole, wide, truncated, c, copy, bits(0xff10));
    int i{10};
    double d = i / 4;
    std::printf("%.2f %.2f %d\n", d, i / 4., int(d) + int{3});
}
