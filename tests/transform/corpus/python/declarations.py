def order():
    a = 1
    b = "two"
    c = a
    d = 3.0
    e = None
    f = True
    a = 10
    a = 20
    return a, b, c, d, e, f


x = 1
y = 2


class Kept:
    first = 1
    second = 2
    third = first + second


def local():
    global x
    x = 5
    y = 6
    return y


print(order(), local(), x, y, [k for k in Kept.__dict__ if not k.startswith("_")])
