#include <stdio.h>

struct point { int x, y; };
typedef struct node {
    int value;
    struct node *next;
} node_t;

union both { int number; unsigned char bytes[4]; };

struct flags { unsigned a : 3; unsigned b : 5; };

static struct point add(struct point p, struct point q) {
    struct point r = { .x = p.x + q.x, .y = p.y + q.y };
    return r;
}

static int total(const node_t *head) {
    int value = 0;
    for (const node_t *n = head; n != NULL; n = n->next)
        value += n->value;
    return value;
}

int main(void) {
    struct point x = {1, 2}, y = {10, 20};
    struct point z = add(x, y);
    node_t c = {3, NULL}, b = {2, &c}, a = {1, &b};
    union both u;
    struct flags f = {5, 17};
    u.number = 1;
    f.a = 9;
    printf("%d %d %d\n", z.x, z.y, total(&a));
    printf("%d %u %u %d\n", u.bytes[0] + u.bytes[3], f.a, f.b, (&a)->next->value);
    return 0;
}
