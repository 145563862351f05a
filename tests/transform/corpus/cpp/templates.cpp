#include <cstdio>

template <typename T> T largest(T a, T b) { return a < b ? b : a; }
template <int N> struct Power { enum { value = 2 * Power<N - 1>::value }; };
template <> struct Power<0> { enum { value = 1 }; };
template <class T, int size = 4> class Stack {
    T items[size];
    int used = 0;
public:
    bool push(const T &item) { if (used == size) return false; items[used++] = item; return true; }
    T pop() { return items[--used]; }
    int count() const { return used; }
};

template <bool B> static int choose() { if constexpr (B) return 10; else return 20; }

int main() {
    Stack<int> stack;
    Stack<char, 2> letters;
    for (int i = 0; i < 6; i++) stack.push(i);
    letters.push('a'); letters.push('b');
    bool full = letters.push('c');
    std::printf("%d %.1f %d\n", largest(3, 10), largest(2.5, 1.5), (int)Power<10>::value);
    std::printf("%d %c %d %d\n", stack.pop(), letters.pop(), stack.count(), full);
    std::printf("%d %d\n", choose<(10 > 3)>(), choose<false>());
}
