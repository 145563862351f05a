#include <stdio.h>
#include <stdlib.h>

struct item { int key; struct item *next; };

static struct item *push(struct item *head, int key) {
    struct item *item = malloc(sizeof(struct item));
    item->key = key;
    item->next = head;
    return item;
}

static struct item *reverse(struct item *head) {
    struct item *done = NULL;
    while (head) {
        struct item *next = head->next;
        head->next = done;
        done = head;
        head = next;
    }
    return done;
}

static void drop(struct item **head, int key) {
    for (struct item **at = head; *at; ) {
        if ((*at)->key == key) {
            struct item *old = *at;
            *at = old->next;
            free(old);
        } else {
            at = &(*at)->next;
        }
    }
}

int main(void) {
    struct item *head = NULL;
    for (int key = 0; key < 6; key++) head = push(head, key % 4);
    head = reverse(head);
    drop(&head, 1);
    for (struct item *i = head; i; i = i->next) printf("%d ", i->key);
    printf("\n");
    while (head) { struct item *next = head->next; free(head); head = next; }
    return head != NULL;
}
