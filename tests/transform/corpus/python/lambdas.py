compose = lambda f, g: lambda x: f(g(x))
add = lambda a, b=10: a + b
pick = lambda *a, **k: (len(a), sorted(k))
print(compose(add, lambda x: x * 2)(3), pick(1, 2, z=3), (lambda: 10)())
table = {"+": lambda a, b: a + b, "-": lambda a, b: a - b}
print(table["+"](1, 2), sorted([3, 1, 2], key=lambda v: -v))
