#include <stdio.h>

int gcd(int a, int b) {
    while (b != 0) {
        int t = b;
        b = a % b;
        a = t;
    }
    return a;
}

int lcm(int a, int b)
{
    if (a == 0 || b == 0)
        return 0;
    return a / gcd(a, b) * b;
}

int main(void) {
    printf("%d %d %d %d\n", gcd(48, 18), gcd(7, 0), lcm(4, 6), lcm(0, 3));
    return 0;
}
