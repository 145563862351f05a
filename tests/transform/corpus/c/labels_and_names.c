#include <stdio.h>

typedef int number;
struct value { int value; };

static number label(number value) {
    struct value v = { value };
value:
    if (v.value > 3) {
        v.value--;
        goto value;
    }
    return v.value;
}

static number type_and_name(struct value value) {
    struct value *p = &value;
    number number = p->value;
    return number + value.value;
}

int main(void) {
    struct value v = {4};
    printf("%d %d %d\n", label(10), label(-2), type_and_name(v));
    return 0;
}
