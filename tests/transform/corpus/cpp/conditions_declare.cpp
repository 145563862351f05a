#include <cstdio>

static int next(int *state) { return *state > 0 ? (*state)-- : 0; }

int main() {
    int state = 5, sum = 0;
    while (int got = next(&state)) sum += got;
    state = 3;
    for (int i = 0; state > 0; i++) { int got = next(&state); sum += got * i; }
    if (int got = next(&state)) sum += 1000; else sum += got + 1;
    switch (int got = sum % 3; got) { case 0: sum++; break; default: sum += got; }
    std::printf("%d\n", sum);
}
