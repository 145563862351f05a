from contextlib import contextmanager


@contextmanager
def tag(name, log):
    log.append("<" + name)
    try:
        yield name.upper()
    finally:
        log.append(">" + name)


class Quiet:
    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        return kind is ZeroDivisionError


def run(n):
    log = []
    with tag("a", log) as a, tag("b", log) as b:
        if n > 3:
            log.append(a + b)
        else:
            log.append("small")
    with Quiet():
        log.append(1 / 0)
    return log


print(run(1), run(10))
