#include <stdio.h>

static int copy(const int *from, int *to, int count) {
    int rounds = (count + 3) / 4;
    int copied = 0;
    switch (count % 4) {
    case 0: do { *to++ = *from++; copied++;
    case 3:      *to++ = *from++; copied++;
    case 2:      *to++ = *from++; copied++;
    case 1:      *to++ = *from++; copied++;
            } while (--rounds > 0);
    }
    return copied;
}

static int resume(int state, int n) {
    switch (state) {
    case 0:
        for (n = 0; n < 5; n++) {
            if (n == 2) return n;
    case 1:
            n += 10;
        }
    }
    return n;
}

int main(void) {
    int a[7] = {1, 2, 3, 4, 5, 6, 7}, b[7] = {0};
    int n = copy(a, b, 7);
    printf("%d %d %d\n", n, b[0], b[6]);
    printf("%d %d\n", resume(0, 0), resume(1, 3));
    return 0;
}
