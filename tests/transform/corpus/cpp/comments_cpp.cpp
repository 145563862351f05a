#include <cstdio>
// int main() { return 1; }
/* if (a) { // nested?
   } */
static int f(int a /* in */, int b = 2 // default
) { // open
    int r = a; // r = b;
    /* first */ int s = 3; /* second */ int t = 4;
    if (a > b) // is it?
        r += s; // yes
    else /* no */
        r -= t;
    // while (r) { r--; }
    while (r > 100 /* || r < 0 */) { r /= 2; } // done {
    return r /* + 1 */; }
int main() { std::printf("%d %d // %d\n", f(1), f(500, 4), f(3, 3)); /* } */ }
