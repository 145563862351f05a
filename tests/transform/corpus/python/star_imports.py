from math import *
from os import path as location, sep
import collections.abc as abc


def hypotenuse(a, b):
    return sqrt(a * a + b * b)


def base(name):
    path = location.join("x", name)
    return path.split(sep), isinstance([], abc.Sequence)


print(hypotenuse(3, 4), floor(pi), base("y"))
