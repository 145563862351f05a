def describe(name, size, width=10):
    total = size * 2
    text = f"{name!r:>{width}}|{total:05d}|{size + 10:x}"
    shown = f"{total=} {size = }"
    nested = f"{f'{name}{10}'}{{name}} # not a comment"
    return text, shown, nested


pi = 3.14159
print(describe("é", 4), f"{pi:.3f} {'if x:' if pi > 3 else 'else:'}")
print(f"""{
    10
} lines""", rf"\d{pi:.1f}")
