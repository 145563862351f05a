#include <stdio.h>

/* { an opening brace, an `if (0)` and a "quote */
static int plain(int n) { // }
    int a = 1; /* ; */ int b = 2; // for (;;) {
    // while (1) {
    if (n /* > 100 */ > 3) /* { */ { a += n; /* } */ }
    else // if (n == 10)
        b -= n;
    for (int i = 0; /* never? */ i < n; /* i-- */ i++) // }
        a += i; // a -= i;
    while (b < 3) // b
        /* grow */ b++;
    return a * 100 + b;
}

static int spliced(int n) {
    // a comment that goes on \
    n = 1000;
    n += 1;
    return n;
}

int main(void) {
    printf("%d %d %d // not a comment /* nor this */\n", plain(2), plain(5), spliced(1));
    return 0;
}
