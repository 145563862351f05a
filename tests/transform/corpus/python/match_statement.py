class Point:
    __match_args__ = ("x", "y")

    def __init__(self, x, y):
        self.x = x
        self.y = y


def kind(value):
    match value:
        case 0 | 1:
            return "bit"
        case 10:
            return "ten"
        case [first, *rest]:
            return f"list {first} {len(rest)}"
        case {"key": found, **others}:
            return f"dict {found} {sorted(others)}"
        case Point(x=0, y=y):
            return f"axis {y}"
        case Point(x, y) if x == y:
            return f"diagonal {x}"
        case str() as text:
            return text.upper()
        case _:
            return "other"


for item in (0, 10, [1, 2], {"key": 3, "a": 1}, Point(0, 5), Point(4, 4), "abc", 2.5):
    print(kind(item))
