def prime(n):
    for d in range(2, n):
        if n % d == 0:
            break
    else:
        return True
    return False


def search(items, wanted):
    i = 0
    while i < len(items):
        if items[i] == wanted:
            result = "found"
            break
        i += 1
    else:
        result = "missing"
    return result, i


print([n for n in range(2, 20) if prime(n)], search([3, 4], 4), search([], 1))
