def outer(a):
    b = a + 1

    def middle(c):
        d = b + c

        def inner(e):
            return a + b + c + d + e

        return inner(10)

    return middle(b)


def recursive(n):
    def go(k):
        return 1 if k <= 1 else k * go(k - 1)

    return go(n)


print(outer(1), recursive(6))
