def parse(text):
    try:
        value = int(text)
        if value < 0:
            raise ValueError("negative")
    except ValueError as error:
        print("bad", error)
        return None
    except (TypeError, KeyError):
        return -1
    else:
        value *= 2
    finally:
        print("done", text)
    return value


def nested(n):
    steps = []
    for i in range(n):
        try:
            if i == 1:
                continue
            if i == 3:
                break
            steps.append(10 // i)
        except ZeroDivisionError:
            steps.append("zero")
        finally:
            steps.append("f")
    return steps


print(parse("4"), parse("-3"), parse(None), nested(5))
