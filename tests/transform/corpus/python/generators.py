def countdown(n):
    while n > 0:
        sent = yield n
        if sent:
            n += sent
        n -= 1
    return "over"


def chained(limit):
    result = yield from countdown(limit)
    yield result


def noisy(n):
    try:
        for i in range(n):
            yield i
    finally:
        print("closed")


def first(n):
    for x in noisy(n):
        if x == 1:
            break
    print("after")
    return x


it = countdown(3)
print(next(it), it.send(2), list(it), list(chained(2)), first(5))
