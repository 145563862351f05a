def inner(n):
    if n == 2:
        raise StopIteration("early")
    return n


def loop(n):
    seen = []
    try:
        for i in range(n):
            seen.append(inner(i))
    except StopIteration as stop:
        seen.append(str(stop))
    return seen


def plain(n):
    it = iter([1, 2, 3])
    out = []
    while n:
        try:
            out.append(next(it))
        except StopIteration:
            break
        n -= 1
    return out


print(loop(4), plain(2), plain(9))
