class Countdown:
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return self

    def __next__(self):
        if self.n <= 0:
            raise StopIteration
        self.n -= 1
        return self.n


def total(items):
    t = 0
    for x in items:
        t += x
    for x in items:
        t += 100
    return t


print(total(Countdown(4)), total([1, 2]), list(Countdown(2)))
