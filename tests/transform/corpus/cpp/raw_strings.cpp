#include <cstdio>
#include <cstring>

int main() {
    const char *raw = R"(
#define x 10
  if (x) { "quoted" } // not a comment \n
)";
    const char *delimited = R"xy()" 10 )xy";
    const wchar_t *wide = L"wide 10";
    const char *joined = "one " "10 " /* between */ "two";
    int length = std::strlen(raw);
    int lines = 0;
    for (const char *p = raw; *p; ++p) if (*p == '\n') lines++;
    std::printf("%s|%s|%d|%d|%s|%d\n", raw, delimited, length, lines, joined, (int)wide[5]);
}
