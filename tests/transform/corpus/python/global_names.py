counter = 0
limit = 10


def tick(by=1):
    global counter
    counter += by
    return counter


def read():
    return counter + limit


def shadow():
    limit = 3
    counter = 5
    return limit + counter


while counter < 4:
    tick()
print(read(), shadow(), counter)
