def two(n):
  if n:
    for i in range(n):
      n += i
  else:
    n = -1
  return n


def tabs(n):
	if n > 2:
		return "big"
	else:
		while n < 2:
			n += 1
	return n


def continued(a,
              b):
    total = a + \
        b
    if (a > 1 and
            b > 1):
        total += (
            10
        )
    return total; x = 1

if True: print(two(3), two(0), tabs(0), tabs(5))
print(continued(1, 2), continued(3,
    4))
