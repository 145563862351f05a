#include <cstdio>

class Box {
    int secret = 10;
    friend int open(const Box &box);
    friend struct Thief;
public:
    friend bool operator<(const Box &a, const Box &b) { return a.secret < b.secret; }
    Box &with(int s) { secret = s; return *this; }
};
int open(const Box &box) { return box.secret; }
struct Thief { static int steal(Box &box) { int secret = box.secret; box.secret = 0; return secret; } };

int main() {
    Box a, b;
    b.with(20);
    std::printf("%d %d ", open(a), a < b);
    std::printf("%d %d\n", Thief::steal(a), open(a));
}
