#include <cstdio>

static int calls = 0;
static bool note(bool b) { ++calls; std::printf("%c", b ? 't' : 'f'); return b; }

static int logic(bool a, bool b) {
    if (note(a) and not note(b)) return 1;
    if (!(note(a) || note(b))) return 2; else if (!note(b)) return 3;
    return a ^ b ? 4 : 5;
}

int main() {
    for (int i = 0; i < 4; i++) std::printf(" %d\n", logic(i & 1, i & 2));
    bool done = false;
    while (!done) { done = calls > 15; note(done); }
    std::printf(" %d\n", calls);
}
