def iter(value):
    return [value]


def next(value):
    return "next", value


def use(n):
    out = []
    for i in range(n):
        out.append(i)
    while n > 0:
        n -= 1
    return out, next(n), iter(n)


print(use(3))
