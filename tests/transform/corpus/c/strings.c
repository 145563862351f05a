#include <stdio.h>
#include <string.h>
#include <ctype.h>

static void reverse_in_place(char *s) {
    size_t n = strlen(s);
    for (size_t i = 0, j = n; i < j; i++) {
        char c;
        j--;
        c = s[i];
        s[i] = s[j];
        s[j] = c;
    }
}

static int count_words(const char *s) {
    int inside = 0, words = 0;
    for (; *s; s++) {
        if (isspace((unsigned char)*s)) inside = 0;
        else if (!inside) { inside = 1; words++; }
    }
    return words;
}

int main(void) {
    char text[] = "if (x) { /* not a comment */ }";
    char other[32] = "für // straße \"10\"";
    printf("%s|%d\n", text, count_words(text));
    reverse_in_place(text);
    printf("%s|%s|%d\n", text, other, count_words("  a b\tc  "));
    puts("line one\n"
         "line 10");
    putchar('{'); putchar('\''); putchar('"'); putchar('\n');
    return 0;
}
