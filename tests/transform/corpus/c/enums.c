#include <stdio.h>

enum colour { RED, GREEN = 5, BLUE };
typedef enum { LOW = 1, HIGH = 10 } level;

static int mix(enum colour c, level l) {
    switch (c) {
    case RED: return l;
    case GREEN: return l * 2;
    case BLUE: return l * 3;
    }
    return 0;
}

int main(void) {
    int high = HIGH;
    printf("%d %d %d %d\n", mix(RED, LOW), mix(GREEN, HIGH), mix(BLUE, high), BLUE);
    return 0;
}
