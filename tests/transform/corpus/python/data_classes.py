from collections import namedtuple
from dataclasses import dataclass, field
from enum import Enum

Pair = namedtuple("Pair", "left right")


@dataclass
class Item:
    name: str
    price: int = 10
    tags: list = field(default_factory=list)


class Colour(Enum):
    red = 1
    green = 2
    blue = 10


def summary(item):
    name = item.name
    price = item.price
    return f"{name}:{price}"


print(Pair(1, right=2), Item("a"), summary(Item(name="b", price=3)), list(Colour), Colour(10))
