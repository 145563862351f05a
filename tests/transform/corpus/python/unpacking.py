def swap(a, b):
    a, b = b, a
    (c, d), *e = [(a, b), 3, 4]
    first, *middle, last = range(5)
    return a, b, c, d, e, first, middle, last


def pairs(table):
    out = []
    for key, (low, high) in table.items():
        out.append((key, high - low))
    for i, (k, v) in enumerate(out):
        out[i] = k * v
    return out


print(swap(1, 2), pairs({"a": (1, 3), "b": (0, 10)}))
x = y = 5
x += 1
a = b = []
a.append(1)
print(x, y, b, *[1, 2], **{"sep": "-"})
