def table(rows, columns):
    total = 0
    for i in range(rows):
        for j in range(columns):
            if i == j:
                continue
            total += i * 10 + j
    return total


def first_multiple(of, start):
    n = start
    while True:
        if n % of == 0:
            break
        n += 1
    return n


def last_value(items):
    x = None
    for x in items:
        pass
    return x


print(table(3, 4), first_multiple(7, 15), last_value([1, 10]), last_value([]))
