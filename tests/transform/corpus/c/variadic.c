#include <stdarg.h>
#include <stdio.h>

static int sum(int count, ...) {
    va_list list;
    int total = 0;
    va_start(list, count);
    for (int i = 0; i < count; i++) total += va_arg(list, int);
    va_end(list);
    return total;
}

static void report(const char *format, ...) {
    char line[100];
    va_list values;
    va_start(values, format);
    vsnprintf(line, sizeof line, format, values);
    va_end(values);
    printf("[%s]\n", line);
}

int main(void) {
    printf("%d %d\n", sum(3, 1, 2, 3), sum(0));
    report("%d of %s at %c", 10, "ten", 'x');
    return 0;
}
