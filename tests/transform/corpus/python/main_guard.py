"""A script."""

LIMIT = 3


def run(limit=LIMIT):
    numbers = []
    for number in range(limit):
        numbers.append(number)
    return numbers


def main():
    result = run()
    print(result, run(limit=2))
    return 0 if result else 1


if __name__ == "__main__":
    raise SystemExit(main() + 4)
