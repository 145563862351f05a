#include <stdio.h>
#include <string.h>

static int sieve(int n, int *out) {
    char composite[101];
    int found = 0;
    memset(composite, 0, sizeof(composite));
    for (int i = 2; i <= n; i++) {
        if (composite[i]) continue;
        out[found++] = i;
        for (int j = i * i; j <= n; j += i) composite[j] = 1;
    }
    return found;
}

int main(void) {
    int primes[30];
    int n = sieve(100, primes);
    for (int i = 0; i < n; i += 4) printf("%d ", primes[i]);
    printf("of %d\n", n);
    return n;
}
