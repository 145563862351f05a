#include <cstdio>

static int area(int kind, int n) {
    switch (kind) {
    case 0: {
        int side = n;
        return side * side;
    }
    case 1:
        if (n > 2) { n = 2; } else { n++; }
        [[fallthrough]];
    case 2:
        for (int i = 0; i < 2; i++) n += i;
        break;
    default:
        while (n > 10) n /= 2;
    }
    return n;
}

static int nested(int a, int b) {
    switch (a) {
    case 1:
        switch (b) { case 1: return 11; default: break; }
        return 10;
    }
    return 0;
}

int main() {
    for (int kind = 0; kind < 4; kind++) std::printf("%d ", area(kind, 5 * kind + 3));
    std::printf("%d %d %d\n", nested(1, 1), nested(1, 2), nested(2, 1));
}
