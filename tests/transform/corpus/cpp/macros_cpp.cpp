#include <cstdio>
#define TRACE(expression) std::printf("%s = %d\n", #expression, expression)
#define TWICE(n) (2 * (n))
#define ITEM(name) Item name##_item{size, cost}

struct Item { int size; int cost; int get_cost() const { return cost; } };
struct Other { int size = 4; int twice() const { return TWICE(size); } };

int main() {
    int size = 3;
    int cost = 10;
    Item item{size, cost};
    ITEM(big);
    TRACE(size * 10);
    TRACE(big_item.size);
    TRACE(item.get_cost()+1);
    for (int index = 0; index < TWICE(size); ++index) { if (index == TWICE(1)) continue; std::printf("[%d]", index); }
    std::printf("\n");
#if 0
    TRACE(undefined);
#endif
}
