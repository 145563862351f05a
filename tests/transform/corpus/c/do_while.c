#include <stdio.h>

static int digits(int n) {
    int count = 0;
    do {
        n /= 10;
        ++count;
    } while (n > 0);
    return count;
}

static int once(int n) {
    do n += 2; while (0);
    do {
        if (n % 2) { n++; continue; }
        n += 5;
        if (n > 30) break;
    } while (n < 100);
    return n;
}

int main(void) {
    printf("%d %d %d\n", digits(0), digits(10), digits(98765));
    printf("%d %d\n", once(0), once(3));
    return 0;
}
