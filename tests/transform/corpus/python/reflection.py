def visible(a, b=2):
    c = a + b
    return sorted(locals())


def evaluated(x):
    y = x * 2
    return eval("x + y")


def named():
    pass


print(visible(1), evaluated(3), named.__name__, visible.__code__.co_varnames)
