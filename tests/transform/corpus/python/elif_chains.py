def grade(p):
    if p >= 90:
        return "A"
    elif p >= 75:
        return "B"
    elif p >= 50:
        if p == 60:
            return "C*"
        return "C"
    else:
        return "F"


def no_else(x):
    r = 0
    if x == 1:
        r = 10
    elif x == 2:
        r = 20
    elif not x == 3:
        r = 30
    return r


def one_line(x):
    if x: y = 1
    else: y = 2
    if not x: return -y
    elif x > 10: y = 3; y += 1
    else:
        y = 5
    return y


print([grade(p) for p in range(0, 101, 15)], grade(60), [no_else(x) for x in range(5)])
print(one_line(0), one_line(5), one_line(11))
