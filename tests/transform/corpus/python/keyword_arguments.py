def area(width, height=10, *rest, scale=1, **options):
    total = width * height * scale
    for value in rest:
        total += value
    for key in sorted(options):
        total += options[key]
    return total


def forward(*args, **kwargs):
    return area(*args, **kwargs)


def only(a, b, c):
    return a * 100 + b * 10 + c


print(area(2), area(2, height=3), area(height=4, width=5), forward(1, 2, 3, scale=2, depth=7))
print(only(c=3, a=1, b=2), only(*[1, 2], c=9))
