#include <stdio.h>

const char *kind(int code) {
    switch (code) {
    case 0:
        return "zero";
    case 1:
    case 2:
        return "few";
    case 10: {
        int extra = 5;
        if (extra > 3) return "ten";
    }
    default:
        break;
    }
    return "many";
}

int weigh(int x) {
    int w = 0;
    switch (x) {
    case 3: w += 3;
        /* fall through */
    case 2: w += 2;
    case 1: w += 1; break;
    default: w = -1;
    }
    return w;
}

int loop_over_switch(int n) {
    int r = 0;
    for (int i = 0; i < n; i++) {
        switch (i % 4) {
        case 0: continue;
        case 1: r += 100; break;
        default: r += i;
        }
        r += 1;
    }
    return r;
}

int main(void) {
    for (int i = -1; i < 12; i++) printf("%s %d\n", kind(i), weigh(i));
    printf("%d\n", loop_over_switch(10));
    return 3;
}
