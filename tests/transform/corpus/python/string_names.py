import sys


class Config:
    size = 10

    def __init__(self):
        self.depth = 3

    def get(self, name):
        return getattr(self, name)


def helper(value):
    return value + 1


def lookup(name):
    return getattr(sys.modules[helper.__module__], name, None)


depth = "depth"
size = Config().get("size")
print(Config().get(depth), size, lookup("missing"))
