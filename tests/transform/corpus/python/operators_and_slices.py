def slices(items):
    a = items[1:3]
    b = items[::-1]
    c = items[-2:]
    items[0:2] = [10, 20]
    return a, b, c, items, items[len(items) - 1 if items else 0]


def chained(x):
    if 0 < x < 10 and not x == 5 or x in (50, 60):
        return "in"
    return "out"


print(slices([1, 2, 3, 4]), [chained(x) for x in (0, 3, 5, 50)])
