calls = []


def step(value):
    calls.append(value)
    return value


def conditions(a, b):
    if step(a) and step(b):
        return 1
    elif step(not a) or step(b):
        return 2
    else:
        return 3


def loops(n):
    for i in range(step(n)):
        n += 1
        step(i)
    while step(n > 5):
        n -= 2
    return n


print([conditions(i & 1, i & 2) for i in range(4)], loops(3), calls)
