#include <cstdio>
#include <memory>
#include <utility>

struct Node {
    int value;
    std::unique_ptr<Node> next;
    Node(int v, std::unique_ptr<Node> n) : value(v), next(std::move(n)) {}
};

int main() {
    std::unique_ptr<Node> head;
    for (int i = 0; i < 4; i++) head = std::make_unique<Node>(i, std::move(head));
    int sum = 0;
    for (Node *n = head.get(); n; n = n->next.get()) sum = sum * 10 + n->value;
    auto shared = std::make_shared<int>(10);
    auto other = shared;
    *other += 5;
    std::printf("%d %d %ld\n", sum, *shared, shared.use_count());
    while (head) head = std::move(head->next);
    if (!head) std::printf("empty\n"); else std::printf("full\n");
}
