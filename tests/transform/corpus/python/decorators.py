import functools


def twice(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs) + function(*args, **kwargs)

    return wrapper


def times(n):
    def decorate(function):
        def wrapper(value):
            for _ in range(n):
                value = function(value)
            return value

        return wrapper

    return decorate


@twice
def greet(name, mark="!"):
    return name + mark


@times(3)
def triple(x):
    return 3 * x


print(greet("a"), greet("b", mark="?"), greet.__name__, triple(10))
