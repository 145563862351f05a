#include <cstdio>

class Counter {
public:
    explicit Counter(int start) : value(start) {}
    int next() { return value++; }
    int peek() const { return value; }
    Counter &add(int value) { this->value += value; return *this; }
private:
    int value;
};

static int drain(Counter &counter, int until) {
    int total = 0;
    while (counter.peek() < until) total += counter.next();
    return total;
}

int main() {
    Counter counter(3);
    int a = 1;
    int b = 2;
    std::printf("%d %d\n", drain(counter, 8), counter.add(a).add(b).peek());
    return 0;
}
