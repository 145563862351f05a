#include <cstdio>

class Range {
    int from, to;
public:
    struct iterator {
        int at;
        int operator*() const { return at; }
        iterator &operator++() { ++at; return *this; }
        bool operator!=(const iterator &other) const { return at != other.at; }
    };
    Range(int from, int to) : from(from), to(to) {}
    iterator begin() const { return {from}; }
    iterator end() const { return {to}; }
};

int main() {
    int sum = 0;
    for (int i : Range(1, 5)) { if (i == 3) continue; sum += i; }
    for (auto it = Range(0, 3).begin(); it != Range(0, 3).end(); ++it) sum += *it * 100;
    std::printf("%d\n", sum);
}
