#include <cstdio>
#include <vector>

static int total(const std::vector<int> &values) {
    int sum = 0;
    for (int v : values) sum += v;
    for (const auto &v : values) if (v > 3) sum += 100; else sum -= 1;
    return sum;
}

int main() {
    std::vector<int> values{1, 10, 3};
    for (auto &v : values) v *= 2;
    std::vector<std::vector<int>> grid(2, std::vector<int>(3, 5));
    int n = 0;
    for (auto &row : grid) for (int cell : row) n += cell;
    for (int x : {1, 2, 3}) n -= x;
    for (auto it = values.begin(); it != values.end(); ++it) n += *it;
    std::printf("%d %d %zu\n", total(values), n, values.size());
}
