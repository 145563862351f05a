def make_counter(start=10):
    count = start

    def step(by=1):
        nonlocal count
        count += by
        return count

    def peek():
        return count

    return step, peek


def late():
    return [lambda: i for i in range(3)], [lambda i=i: i for i in range(3)]


step, peek = make_counter()
step()
step(by=5)
print(peek(), [f() for f in late()[0]], [f() for f in late()[1]])
