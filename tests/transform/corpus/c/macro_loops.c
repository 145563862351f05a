#include <stdio.h>
#define EACH(i, n) for (int i = 0; i < (n); i++)

/* No grammar without a preprocessor reads this. */
int main(void) {
    int n = 3;
    EACH(k, n) printf("%d ", k);
    EACH(k, n) { if (k == 1) continue; printf("[%d]", k); }
    printf("\n");
#ifdef UNKNOWN
    this is not C
#endif
    return 0;
}
