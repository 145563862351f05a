#include <stdio.h>

static int length(const char *s) {
    const char *end = s;
    while (*end++) ;
    for (;;) { break; }
    for (int i = 0; i < 3; i++);
    for (int i = 0; i < 3; i++) { }
    if (*s == 'x') ; else { s++; }
    if (*s == 'y') { }
    if (*s == 'z') { } else { }
    return (int)(end - s - 1);
}

int main(void) {
    printf("%d %d %d\n", length("xyz"), length("abc"), length("y"));
    ;
    { { } }
    return 0;
}
