#include <cstdio>

static int mixed(int n) {
    int r = 0;
    for (int i = 0, *p = &n; i < *p; ++i) {
        int j = i;
        while (j > 0) { if (j % 3 == 0) { j -= 2; continue; } r += j--; }
    }
    for (unsigned char c = 250; c != 3; c++) r++;
    do { r -= 7; } while (r > 50);
    for (;;) if (r++ > 60) break;
    return r;
}

static int find(const char *s, char c) {
    for (int at = 0; s[at]; at++)
        if (s[at] == c) return at;
    return -1;
}

static int shadow(int i) {
    int total = 0;
    for (int i = 0; i < 4; i++) { { int i = 10; total += i; } total += i; }
    for (i = 0; i < 3; i++) total += i;
    return total * 10 + i;
}

int main() {
    std::printf("%d %d %d %d\n", mixed(9), find("hello", 'l'), find("hello", 'x'), shadow(5));
}
