#include <stdio.h>

static const char *grade(int p) {
    if (p >= 90) return "A";
    else if (p >= 75) return "B";
    else if (p >= 50) {
        if (p == 60) return "C*";
        return "C";
    }
    else return "F";
}

static int sign(int x) {
    int s;
    if (x > 0)
        s = 1;
    else if (x < 0)
        s = -1;
    else
        s = 0;
    return s;
}

static int no_final_else(int x) {
    int r = 0;
    if (x == 1) r = 10;
    else if (x == 2) r = 20;
    else if (x == 3) r = 30;
    return r;
}

int main(void) {
    for (int i = 0; i <= 100; i += 15) printf("%s", grade(i));
    printf(" %s %d%d%d", grade(60), sign(-9), sign(0), sign(9));
    for (int i = 0; i < 5; i++) printf(" %d", no_final_else(i));
    printf("\n");
    return 0;
}
