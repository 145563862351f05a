#include <cstdio>

struct Vec {
    int x, y;
    Vec operator+(const Vec &o) const { return {x + o.x, y + o.y}; }
    Vec &operator+=(const Vec &o) { x += o.x; y += o.y; return *this; }
    bool operator==(const Vec &o) const { return x == o.x && y == o.y; }
    int operator[](int i) const { return i == 0 ? x : y; }
    int operator()(int k) const { return k * (x + y); }
    explicit operator bool() const { return x || y; }
    Vec operator-() const { return {-x, -y}; }
};
static Vec operator*(int k, const Vec &v) { return {k * v.x, k * v.y}; }

int main() {
    Vec a{1, 2}, b{3, 4};
    Vec c = a + 10 * b;
    c += -a;
    if (c == 10 * b) std::printf("equal %d %d %d\n", c[0], c[1], c(2));
    else std::printf("different\n");
    if (a) std::printf("true\n"); else std::printf("false\n");
    while (Vec d = a) { a = Vec{0, d.y - 1}; if (!a) break; }
    std::printf("%d %d\n", a.x, a.y);
}
