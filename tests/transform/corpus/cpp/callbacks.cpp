#include <cstdio>
#include <functional>
#include <vector>

struct Button {
    std::vector<std::function<void(int)>> handlers;
    void on(std::function<void(int)> handler) { handlers.push_back(handler); }
    void press(int times) { for (int i = 0; i < times; i++) for (auto &handler : handlers) handler(i); }
};

static void log(int i) { std::printf("log %d\n", i); }

int main() {
    Button button;
    int total = 0;
    button.on([&total](int i) { if (i == 0) return; total += i; });
    button.on(log);
    button.press(3);
    std::function<int(int)> fact = [&fact](int n) { if (n < 2) return 1; else return n * fact(n - 1); };
    std::printf("%d %d\n", total, fact(5));
}
