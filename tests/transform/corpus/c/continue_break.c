#include <stdio.h>

int odd_sum(int limit)
{
    int sum = 0;
    for (int i = 0; i < limit; i++)
    {
        if (i % 2 == 0)
            continue;
        if (i > 11)
            break;
        sum += i;
    }
    return sum;
}

int first_multiple(int of, int from)
{
    int i = from;
    while (1) {
        if (i % of == 0)
            break;
        i++;
    }
    return i;
}

int skip_in_inner(int n)
{
    int hits = 0;
    for (int i = 0; i < n; i++) {
        int j = 0;
        while (j < n) {
            j++;
            if ((i + j) % 3) continue;
            hits++;
        }
    }
    return hits;
}

int main(void)
{
    printf("%d %d %d\n", odd_sum(0), odd_sum(8), odd_sum(100));
    printf("%d %d\n", first_multiple(7, 15), first_multiple(3, 9));
    printf("%d\n", skip_in_inner(7));
    return 0;
}
