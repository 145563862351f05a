def bubble(items):
    items = list(items)
    n = len(items)
    swapped = True
    while swapped:
        swapped = False
        for i in range(n - 1):
            if items[i] > items[i + 1]:
                items[i], items[i + 1] = items[i + 1], items[i]
                swapped = True
        n -= 1
    return items


def quick(items):
    if len(items) < 2:
        return items
    pivot, *rest = items
    low = [x for x in rest if x < pivot]
    high = [x for x in rest if x >= pivot]
    return quick(low) + [pivot] + quick(high)


print(bubble([3, 10, 2, 7]), quick([3, 10, 2, 7, 3]))
