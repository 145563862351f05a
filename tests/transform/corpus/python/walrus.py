def halves(n):
    out = []
    while (n := n // 2) > 0:
        out.append(n)
    if (total := sum(out)) > 10:
        out.append(total)
    else:
        out.append(-total)
    if half := total // 2:
        return out + [half]
    return out


print(halves(10), halves(100), halves(1))
print([y for x in range(5) if (y := x * x) > 3], y)
