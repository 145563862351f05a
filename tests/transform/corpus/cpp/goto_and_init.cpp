#include <cstdio>

static int retry(int n) {
    int tries = 0;
again:
    tries++;
    if (n > 3) { n -= 2; goto again; }
    if (n == 0) goto out;
    for (int i = 0; i < n; i++) { if (i == 2) goto out; tries += 10; }
out:
    return tries;
}

int main() { std::printf("%d %d %d\n", retry(9), retry(0), retry(3)); return retry(1); }
