"""Transformed programs are compiled and run: they print what they printed before.

A seeded sample; `benchmarks/transform_semantics.py` runs all of them.
"""

import bisect
import colorsys
import heapq
import inspect
import textwrap
from random import Random
from types import CodeType

import pytest

from distill.transform import LANGUAGES, TRANSFORMATIONS, transformed
from tests.transform.programs import can_run, outcomes, programs

CASES = {"c": 56, "cpp": 24, "java": 64, "python": 160}
"""About 60 ms each in C, 200 ms in C++; together 4 s in Java, 1 s in Python."""


def sample(language: str, corpus: dict[str, str]) -> list[tuple[str, str, str]]:
    """(program, transformation, changed text); the transformations take turns."""
    rng = Random(language)
    found: list[tuple[str, str, str]] = []
    while len(found) < CASES[language]:
        name = sorted(TRANSFORMATIONS)[len(found) % len(TRANSFORMATIONS)]
        program, seed = rng.choice(sorted(corpus)), rng.randrange(10**6)
        text = transformed(corpus[program], language, name, seed)
        if text is not None:
            found.append((program, name, text))
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_transformed_programs_do_the_same(language, tmp_path):
    if not can_run(language):
        pytest.skip(f"no compiler of {language} here: its results are parsed only")
    corpus = programs(language)
    changed = sample(language, corpus)
    used = sorted({program for program, _, _ in changed})
    sources = [*(corpus[program] for program in used), *(text for _, _, text in changed)]
    printed = outcomes(sources, language, tmp_path)
    before = dict(zip(used, printed, strict=False))
    assert all(outcome.code >= 0 and outcome.stdout for outcome in before.values())
    for (program, name, text), after in zip(changed, printed[len(used) :], strict=True):
        assert after == before[program], f"{name} of {program}:\n{text}"


@pytest.mark.parametrize(
    ("language", "good", "bad"),
    [
        ("c", 'int printf(const char *, ...);\nint main(void) { printf("%d", 1); return 0; }\n',
         [("1);", "2);"), ("return 0", "return 1"), ("return 0", "return x")]),
        ("python", "print(1)\n", [("1", "2"), ("print", "raise ")]),
        ("java", "public class Main { public static void main(String[] a) "
         "{ int x = 1; System.out.print(x); } }", [("x = 1", "x"), ("1", "'2' / 0")]),
    ],
)  # fmt: skip
def test_a_change_of_meaning_would_be_seen(language, good, bad, tmp_path):
    if not can_run(language):
        pytest.skip(f"no compiler of {language} here")
    before, *after = outcomes(
        [good, *(good.replace(*change) for change in bad)], language, tmp_path
    )
    assert before == ("1\n" if language == "python" else "1", 0)
    assert len(after) == len(bad) and before not in after


@pytest.mark.parametrize("module", [bisect, colorsys, heapq, textwrap])
@pytest.mark.parametrize("name", ["layout", "comments", "constants"])
def test_modules_of_the_standard_library_compile_to_the_same_bytecode(module, name):
    source = inspect.getsource(module)
    results = [transformed(source, "python", name, seed) for seed in range(3)]
    assert any(results)
    for result in filter(None, results):
        assert bytecode(compile(result, "", "exec")) == bytecode(compile(source, "", "exec"))


def bytecode(code: CodeType) -> tuple[object, ...]:
    """All but line numbers; from Python 3.13 a class has its own among its constants."""
    has_line = "__firstlineno__" in code.co_names
    consts = [
        bytecode(c) if isinstance(c, CodeType) else repr(c)
        for c in code.co_consts
        if not (has_line and c == code.co_firstlineno)
    ]
    return code.co_code, code.co_names, code.co_varnames, tuple(consts)
