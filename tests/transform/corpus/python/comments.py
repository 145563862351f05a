# -*- coding: utf-8 -*-
"""Module docstring."""
# leading


def f(n):  # signature
    """Doc: if n: # no comment"""
    # before if
    if n > 3:  # condition
        # inside
        n += 10  # trailing
        # end of then
    # between
    else:  # otherwise
        # inside else
        n -= 1
    # after
    for i in range(3):  # loop
        # first
        n += i
    return n  # done


class C:  # class
    # only a comment
    x = 1  # x = 2


print(f(1), f(5), f.__doc__, C.x, "# end")  # last
