#include <cstdio>

static int local(int n) {
    struct Acc {
        int total = 0;
        void add(int n) { total += n; }
    } acc;
    for (int i = 0; i < n; i++) acc.add(i);
    return acc.total;
}

static int names(int Acc) { struct point { int x; int y; } point = {Acc, 2}; return point.x * 10 + point.y; }

struct Chain {
    int n = 0;
    Chain &then(int by) { n += by; return *this; }
};

int main() {
    Chain chain;
    std::printf("%d %d %d\n", local(5), names(4), chain.then(1).then(10).n);
}
