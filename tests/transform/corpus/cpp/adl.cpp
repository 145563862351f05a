#include <cstdio>
#include <utility>
namespace lib {
    struct Item { int n; };
    void swap(Item &a, Item &b) { int n = a.n; a.n = b.n * 10; b.n = n; }
    int size(const Item &item) { return item.n; }
    int weigh(const Item &item) { return item.n + 100; }
}
template <class T> static void exchange(T &a, T &b) { using std::swap; swap(a, b); }

int main() {
    lib::Item a{1}, b{2};
    int x = 3, y = 4;
    exchange(a, b);
    exchange(x, y);
    std::printf("%d %d %d %d %d %d\n", a.n, b.n, x, y, size(a), weigh(b));
}
