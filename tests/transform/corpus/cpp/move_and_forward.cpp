#include <cstdio>
#include <utility>

static int which(int &) { return 1; }
static int which(int &&) { return 2; }
template <class T> static int relay(T &&item) { return which(std::forward<T>(item)); }
template <class... Ts> static int add(Ts... items) { return (0 + ... + items); }
template <class T> static int count(T) { return 1; }
template <class T, class... Rest> static int count(T, Rest... rest) { return 1 + count(rest...); }

int main() {
    int x = 4;
    std::printf("%d %d %d\n", relay(x), relay(10), relay(std::move(x)));
    std::printf("%d %d %d\n", add(1, 2, 10), add(), count('a', 2, "c"));
}
