"""Code that never runs, or whose result nothing reads."""

from __future__ import annotations

from random import Random

from distill.transform.names import fresh_name
from distill.transform.scopes_python import REFLECTION
from distill.transform.source import Code, Edit, some
from distill.transform.statements import InsertionPoint, function_of, is_in_class, places


def dead_code(code: Code, rng: Random) -> str:
    """A branch that is never taken, a loop of no rounds, or a local that nothing reads, before
    some statement of a function.

    Each is in a block of its own: C++ lets no `goto` or `case` jump over an initialisation.
    A `constexpr` function stays, as early standards allow it a single statement only.
    """
    name = fresh_name(code, rng)
    open_places = [place for place in places(code) if _is_open(code, place)]
    sites = [[_inserted(code, place, name, rng)] for place in open_places]
    return code.edited(some(sites, rng, share=1 / max(1, len(sites))))


def _is_open(code: Code, place: InsertionPoint) -> bool:
    if code.language == "python":
        return not is_in_class(place.statement) and not code.words & REFLECTION
    if code.language != "cpp":
        return True
    function = function_of(place.statement)
    assert function is not None, "a statement outside a function"
    head = code.source[function.start_byte : place.block.start_byte]
    return b"constexpr" not in head and b"consteval" not in head


def _inserted(code: Code, place: InsertionPoint, name: str, rng: Random) -> Edit:
    start = place.statement.start_byte
    value, other = rng.randint(0, 99), rng.randint(0, 99)
    if code.language == "python":
        indent = code.indent(start).decode()
        step = "\t" if "\t" in indent else "    "
        body = f"\n{indent}{step}{name} = {value}\n{indent}"
        kinds = [
            f"if False:{body}",
            f"while False:{body}",
            f"{name} = {value}\n{indent}",
        ]
        return Edit(start, start, rng.choice(kinds).encode())
    never = "false" if code.language == "java" else "0"
    kinds = [
        f"if ({never}) {{ int {name} = {value}; {name}++; }}",
        f"{{ int {name} = {value}; {name} += {other}; }}",
        f"for (int {name} = {value}; {name} < {value}; {name}++) {{ }}",
    ]
    if code.language == "java":
        kinds.append(f"if ({value} > {value + other}) {{ int {name} = {other}; }}")
    else:
        kinds.append(f"while ({never}) {{ int {name} = {value}; {name}--; }}")
    gap = b"\n" + code.indent(start) if code.is_first_on_line(start) else b" "
    return Edit(start, start, rng.choice(kinds).encode() + gap)
