#include <stdio.h>
#include <string.h>

#define BUCKETS 7

static struct entry { const char *key; int value; int used; } table[BUCKETS];

static unsigned hash(const char *key) {
    unsigned h = 5381;
    for (; *key; key++) h = h * 33 + (unsigned char)*key;
    return h % BUCKETS;
}

static int put(const char *key, int value) {
    unsigned at = hash(key), start = at;
    while (table[at].used && strcmp(table[at].key, key) != 0) {
        at = (at + 1) % BUCKETS;
        if (at == start) return 0;
    }
    table[at].key = key;
    table[at].value = value;
    table[at].used = 1;
    return 1;
}

static int get(const char *key, int missing) {
    unsigned at = hash(key);
    for (int i = 0; i < BUCKETS; i++, at = (at + 1) % BUCKETS)
        if (table[at].used && !strcmp(table[at].key, key)) return table[at].value;
    return missing;
}

int main(void) {
    put("one", 1); put("two", 2); put("three", 3); put("two", 22);
    printf("%d %d %d %d\n", get("one", -1), get("two", -1), get("three", -1), get("four", -1));
    return 0;
}
