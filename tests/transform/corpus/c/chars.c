#include <stdio.h>

static void caesar(char *s, int by) {
    while (*s) {
        if (*s >= 'a' && *s <= 'z') *s = 'a' + (*s - 'a' + by) % 26;
        else if (*s >= 'A' && *s <= 'Z') *s = 'A' + (*s - 'A' + by) % 26;
        s++;
    }
}

static int from_hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

int main(void) {
    char text[] = "Hello, World {10}";
    caesar(text, 3);
    printf("%s %d %d %d\n", text, from_hex('7'), from_hex('c'), from_hex('z'));
    caesar(text, 23);
    printf("%s %c%c\n", text, 'x' + 1, 90);
    return 'A' - 60;
}
