class Thing:
    def __repr__(self):
        return type(self).__name__ + "()"


class Other:
    pass


def describe(thing):
    kind = type(thing)
    return kind.__name__, repr(thing) if isinstance(thing, Thing) else "-"


print(describe(Thing()), describe(Other()))
