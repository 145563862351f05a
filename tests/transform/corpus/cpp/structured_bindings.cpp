#include <cstdio>
#include <map>
#include <string>
#include <utility>

static std::pair<int, int> divide(int a, int b) { return {a / b, a % b}; }

int main() {
    auto [quotient, rest] = divide(17, 5);
    std::map<std::string, int> ages{{"ann", 30}, {"bob", 10}};
    int total = 0;
    for (const auto &[name, age] : ages) { total += age; std::printf("%s ", name.c_str()); }
    if (auto found = ages.find("bob"); found != ages.end()) total += found->second;
    else total = 0;
    std::printf("%d %d %d\n", quotient, rest, total);
}
