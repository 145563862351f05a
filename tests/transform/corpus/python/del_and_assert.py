def clean(n):
    temp = n * 2
    other = temp
    del temp
    try:
        assert other > 10, "too small"
    except AssertionError as error:
        return str(error)
    return other


def missing():
    value = 1
    del value
    try:
        return value
    except Exception as error:
        return type(error).__name__


print(clean(1), clean(10), missing())
