def arithmetic():
    a = 10
    b = 0x10
    c = 0o10
    d = 0b10
    e = 10.5
    f = 1_000
    g = 10j
    h = 10**3
    i = -10 % 3
    j = 2**-1
    k = 7 // -2
    return a, b, c, d, e, f, g, h, i, j, k


def identity():
    small = 10
    big = 1000
    return small is 10, big is 1000, True is 1, 10 == 10.0


print(arithmetic(), 10 .bit_length(), 10if True else 3, [10, 20][1], {10: 1}[10], 100 // 10)
print(1 if 10 > 9 > 8 else 0, not 0, -0, ~10, 1 << 10, 3 - -3)
