def append(item, items=[]):
    items.append(item)
    return items


base = 3


def bound(n=base, base=base):
    return n + base


def annotated(n: int = 10, *, flag: bool = False) -> "int":
    size: int = 2
    label: str
    if flag:
        size = n
    return size


base = 10
print(append(1), append(2), bound(), bound(1), annotated(), annotated(flag=True))
