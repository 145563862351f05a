def quotes():
    a = 'it''s "10"'
    b = "# not a comment"
    c = '''if x:
    y = 10
  # inside
'''
    d = r"\n{10}"
    e = b"bytes 10"
    return a, b, c, d, e


def reverse(text):
    out = ""
    for letter in text:
        out = letter + out
    return out


print(quotes(), reverse("straße é 漢字"), "a" "b" "10", "%d %s" % (10, "x"))
print("{} {x}".format(1, x=10), "tab\t|", "\u00e9" == "é")
