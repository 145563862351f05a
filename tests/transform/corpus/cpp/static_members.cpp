#include <cstdio>

class Registry {
    static int count;
    int id;
public:
    Registry() : id(++count) {}
    int number() const;
    static int total() { return count; }
    enum class Kind { first = 1, second = 10 };
    Kind kind() const { if (id % 2) return Kind::first; return Kind::second; }
};
int Registry::count = 0;
int Registry::number() const { int number = id; for (int i = 0; i < count; i++) number += 10; return number; }

static int count(int n) { return n + Registry::total(); }

int main() {
    Registry a, b, c;
    std::printf("%d %d %d %d\n", b.number(), Registry::total(), count(1), (int)b.kind());
}
