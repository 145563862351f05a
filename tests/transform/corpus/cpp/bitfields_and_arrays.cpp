#include <cstdio>

struct Packed { unsigned low : 4; unsigned high : 4; int rest = 10; };
static int grid[2][3] = {{1, 2, 3}, {4, 5, 6}};
enum Level { LOW = 1, HIGH = LOW + 10 };

static int column(int c) { int s = 0; for (auto &row : grid) s += row[c]; return s; }

int main() {
    Packed p{};
    p.low = 18;
    p.high = 10;
    int *flat = &grid[0][0];
    int sum = 0;
    while (flat != &grid[1][2]) sum += *flat++;
    std::printf("%d %d %d %d %d %d\n", (int)p.low, (int)p.high, p.rest, column(2), sum, HIGH);
}
