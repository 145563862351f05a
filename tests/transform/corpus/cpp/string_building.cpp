#include <cstdio>
#include <string>

static std::string repeat(const std::string &s, int n) {
    std::string out;
    for (int i = 0; i < n; ++i) out += s;
    return out;
}

static bool palindrome(const std::string &s) {
    int i = 0;
    int j = (int)s.size() - 1;
    while (i < j) { if (s[i] != s[j]) return false; i++; j--; }
    return true;
}

int main() {
    std::string text = "a{b}a";
    text.insert(2, "// ");
    std::printf("%s %d %d %s\n", repeat("ab", 3).c_str(), palindrome("abba"), palindrome("abc"), text.c_str());
    std::printf("%s\n", (std::string("x") + std::to_string(10) + "ü").c_str());
}
