import re


def words(text):
    counts = {}
    for word in re.findall(r"\w+", text.lower()):
        if word in counts:
            counts[word] += 1
        else:
            counts[word] = 1
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def wrap(text, width):
    lines, line = [], ""
    for word in text.split():
        if len(line) + len(word) >= width:
            lines.append(line.strip())
            line = ""
        line += " " + word
    lines.append(line.strip())
    return lines


print(words("The cat and the hat and the bat"), wrap("a bb ccc dddd eeeee", 6))
