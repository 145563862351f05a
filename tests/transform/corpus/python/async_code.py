import asyncio


async def double(n):
    await asyncio.sleep(0)
    return n * 2


async def items(n):
    for i in range(n):
        yield i


class Manager:
    async def __aenter__(self):
        return 10

    async def __aexit__(self, *details):
        return False


async def main():
    total = 0
    async for i in items(4):
        if i == 2:
            continue
        total += await double(i)
    async with Manager() as value:
        total += value
    while total < 30:
        total += await double(1)
    return total, [x async for x in items(2)]


print(asyncio.run(main()))
