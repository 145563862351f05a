#include <stdio.h>

typedef enum { START, NUMBER, WORD, END } state;

static int tokens(const char *s, int *numbers) {
    state now = START;
    int words = 0;
    *numbers = 0;
    while (now != END) {
        char c = *s++;
        switch (now) {
        case START:
            if (c == '\0') now = END;
            else if (c >= '0' && c <= '9') { now = NUMBER; (*numbers)++; }
            else if (c != ' ') { now = WORD; words++; }
            break;
        case NUMBER:
        case WORD:
            if (c == ' ') { now = START; continue; }
            if (!c) now = END;
            break;
        default:
            break;
        }
    }
    return words;
}

int main(void) {
    int numbers;
    int words = tokens("ab 12 c3 4 d", &numbers);
    printf("%d %d\n", words, numbers);
    words = tokens("", &numbers);
    printf("%d %d\n", words, numbers);
    return 0;
}
