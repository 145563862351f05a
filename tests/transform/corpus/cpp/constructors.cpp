#include <cstdio>

static int alive = 0;
struct Noisy {
    const char *name;
    Noisy(const char *n) : name(n) { alive++; std::printf("+%s ", name); }
    Noisy(const Noisy &other) : name(other.name) { alive++; std::printf("c%s ", name); }
    ~Noisy() { alive--; std::printf("-%s ", name); }
};

static int scopes(int n) {
    Noisy first("first");
    Noisy second("second");
    for (Noisy loop("loop"); n > 0; n--) { Noisy body("body"); if (n == 2) continue; }
    while (n < 2) { Noisy inner("w"); n++; }
    if (n == 2) { Noisy then("then"); } else { Noisy otherwise("else"); }
    return alive;
}

static int temporary(Noisy noisy) { if (noisy.name[0] == 't') return 1; else return 2; }

int main() {
    int r = scopes(3);
    std::printf("\n%d %d\n", r, temporary(Noisy("temp")));
    std::printf("%d\n", alive);
}
