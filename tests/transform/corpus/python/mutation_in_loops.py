def grow(items):
    for x in items:
        if x < 3:
            items.append(x + 1)
    return items


def rebind(n):
    seen = []
    for i in range(n):
        seen.append(i)
        i += 10
        n = 0
    return seen, i, n


def while_changes(items):
    total = 0
    while items:
        x = items.pop()
        if x % 2:
            continue
        total += x
    return total


print(grow([1]), rebind(3), while_changes([1, 2, 10, 4]))
