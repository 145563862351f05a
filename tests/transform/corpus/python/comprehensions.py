def shapes(n):
    x = 100
    squares = [x * x for x in range(n)]
    pairs = {(i, j) for i in range(n) for j in range(i) if i != j}
    table = {k: [v for v in range(k)] for k in range(3)}
    lazy = sum(y for y in squares if y % 2)
    return x, squares, sorted(pairs), table, lazy


values = [1, 2, 10]
values = [values for values in values if values > 1]
print(shapes(4), values)
print([[a + b for a in (1, 2)] for b in (10, 20)], (lambda q: [q for q in q])("abc"))
