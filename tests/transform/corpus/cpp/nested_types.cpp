#include <cstdio>

template <class T> struct List {
    struct Node { T item; Node *next; };
    using value_type = T;
    Node *head = nullptr;
    void push(T item) { head = new Node{item, head}; }
    ~List() { while (head) { Node *next = head->next; delete head; head = next; } }
};
template <class L> static typename L::value_type first(const L &list) {
    typename L::value_type item = list.head->item;
    return item;
}
typedef unsigned long ulong_type;
using number = int;

int main() {
    List<number> list;
    for (number i = 0; i < 3; i++) list.push(i * 10);
    int items = 0;
    for (List<int>::Node *node = list.head; node != nullptr; node = node->next) items++;
    ulong_type big = 1UL << 33;
    std::printf("%d %d %lu\n", first(list), items, big);
}
