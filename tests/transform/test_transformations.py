"""What needs no compiler: tokens, determinism, and where a transformation holds back."""

import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.errors import ConfigError
from distill.transform import LANGUAGES, TRANSFORMATIONS, Code, transformed
from distill.transform.source import COMMENTS, STRINGS, walk
from tests.transform.programs import programs

CORPUS = [
    (language, source) for language in LANGUAGES for source in programs(language).values()
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(CORPUS), st.sampled_from(sorted(TRANSFORMATIONS)), st.integers(0, 2**31))
def test_every_result_parses_and_a_seed_gives_it_again(snippet, name, seed):
    language, source = snippet
    result = transformed(source, language, name, seed)
    assert result == transformed(source, language, name, seed)
    if result is not None:
        assert result != source
        assert Code.parse(result, language).is_valid


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(CORPUS), st.sampled_from(("layout", "comments")), st.integers(0, 2**31))
def test_layout_keeps_every_token_and_comments_all_but_comments(snippet, name, seed):
    language, source = snippet
    result = transformed(source, language, name, seed)
    if result is not None:
        keeps_comments = name == "layout"
        assert tokens(result, language, keeps_comments) == tokens(source, language, keeps_comments)
        if language in ("c", "cpp"):
            assert directives(result) == directives(source)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(CORPUS),
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 60)), max_size=3),
    st.integers(0, 2**31),
)
def test_programs_with_holes_are_refused_or_still_give_what_parses(snippet, holes, seed):
    language, source = snippet
    for place, width in holes:
        start = int(place * len(source))
        source = source[:start] + source[start + width :]
    code = Code.parse(source, language)
    for transformation in TRANSFORMATIONS.values():
        result = transformation(code, Random(seed))
        assert result == source or (code.is_valid and Code.parse(result, language).is_valid)


def tokens(text: str, language: str, with_comments: bool) -> list[str]:
    code = Code.parse(text, language)
    whole = STRINGS | COMMENTS
    found = []
    for node in walk(code.tree.root_node, into=lambda n: n.type not in whole):
        # Python's block starts and ends are tokens without text; a directive's newline is one.
        if (node.child_count == 0 or node.type in whole) and code.slice(node).strip():
            is_comment = node.type in COMMENTS
            if with_comments or not is_comment:
                found.append(code.slice(node).decode().strip())
    return found


def directives(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("#")]


def test_an_unknown_language_or_transformation_is_named_with_the_known_ones():
    with pytest.raises(
        ConfigError, match=r"language must be one of c, cpp, java, python, got 'go'"
    ):
        Code.parse("x", "go")
    with pytest.raises(ConfigError, match=r"one of rename, .*declaration_order, got 'obfuscate'"):
        transformed("int x;", "c", "obfuscate", 0)


@pytest.mark.parametrize("name", sorted(TRANSFORMATIONS))
@pytest.mark.parametrize(
    ("language", "source"),
    [("c", "int f(int a { for (;;) a++; }"), ("python", "def f(:\n    return 10\n"), ("c", "")],
)
def test_source_that_does_not_parse_is_left_alone(language, source, name):
    assert transformed(source, language, name, 0) is None
    assert TRANSFORMATIONS[name](Code.parse(source, language), Random(0)) == source


def everywhere(source: str, language: str, name: str) -> set[str]:
    """What the transformation may make of the source, by many seeds."""
    return {r for seed in range(40) if (r := transformed(source, language, name, seed))}


@pytest.mark.parametrize(
    ("language", "name", "source"),
    [
        ("c", "loop", "void f(int n) { for (int i = 0; i < n; i++) { if (i) continue; g(i); } }"),
        ("c", "loop", "void f(int n) { for (; n; n--) switch (n) { case 1: continue; } }"),
        ("java", "loop", "class A { int f() { for (int i = 0; ; i++) { return i; } } }"),
        ("java", "loop", "class A { void f() { a: for (int i = 0; i < 3; i++) { g(); } } }"),
        ("python", "loop", "for i in f():\n    print(i)\nelse:\n    pass\n"),
        ("python", "loop", "def f():\n    for x in g():\n        break\n"),
        ("python", "loop", "class A:\n    for x in range(3):\n        pass\n"),
        ("python", "loop", "next = 3\nfor x in range(3):\n    pass\n"),
        ("cpp", "branch", "void f() { if (int x = g()) h(x); else h(0); }"),
        ("cpp", "branch", "template <bool B> int f() { if constexpr (B) g(); else h(); }"),
        ("java", "branch", "class A { void f(Object o) { if (o instanceof String s) g(s); } }"),
        ("c", "constants", "enum e { A = 10 }; struct s { int b : 3; };"),
        ("c", "constants", "#define A 10\n#if 10 > 3\nunsigned x = 0x80000000;\n#endif\n"),
        ("c", "constants", "int *p = 0; long a = 10L; unsigned b = 10u; int c = 010, d = 0x10;"),
        ("c", "constants", "void f(void) { SHOW(10); } double d = 10.0; char c = '1';"),
        ("cpp", "constants", "std::array<int, 3> a; template <int N = 4> struct S; auto t = 10ms;"),
        ("cpp", "constants", "struct S { virtual void f() = 0; };"),
        ("python", "constants", "match x:\n    case 10:\n        pass\n"),
        ("python", "constants", "x = f'{a:10}' + '10' if y is 10 else True\nz = 1_0, 0x10, 10j\n"),
        ("c", "declaration_order", "void f(void) { int a = 1; int b = a; int c = sizeof b; }"),
        ("c", "declaration_order", "void f(void) { int a = 1; g(); int b = 2; }"),
        ("cpp", "declaration_order", "void f() { Noisy a; Noisy b; static int c = 1; int d; }"),
        ("python", "declaration_order", "class A:\n    x = 1\n    y = 2\n"),
        ("python", "declaration_order", "x = 1\nx = 2\n"),
        ("python", "dead_code", "def f():\n    x = 1\n    return locals()\n"),
        ("python", "loop", "def f(n):\n    for i in range(n):\n        x = dir()\n"),
        ("cpp", "dead_code", "constexpr int f(int n) { return n; }"),
        ("c", "layout", "int f(void) { return __LINE__; }"),
        ("c", "comments", "int f(void)\n{\n    return __LINE__;\n}\n"),
    ],
)  # fmt: skip
def test_where_behaviour_might_change_nothing_does(language, name, source):
    assert Code.parse(source, language).is_valid
    assert everywhere(source, language, name) == set()


@pytest.mark.parametrize(
    ("language", "name", "source", "expected"),
    [
        ("c", "loop", "void f(int n) { for (; n; n--) g(n); }",
         "void f(int n) { {  while (n) { g(n); n--; } } }"),
        ("c", "loop", "void f(int n) { while (n) g(n--); }",
         "void f(int n) { for (; n; ) g(n--); }"),
        ("c", "branch", "int f(int a) { if (!a) return 1; else if (a > 3) return 2; return 3; }",
         "int f(int a) { if (a) { if (a > 3) return 2; } else { return 1; } return 3; }"),
        ("python", "branch", "if a:\n    b()  # 1\nelse:\n    c()\nd()\n",
         "if not (a):\n    c()\nelse:\n    b()  # 1\nd()\n"),
        ("python", "loop", "while a > 3:\n    b()\n",
         "for NEW in iter(int, 1):\n    if not (a > 3):\n        break\n    b()\n"),
        ("c", "declaration_order", "void f(void) { int a = 1; char *b = \"x\"; g(a, b); }",
         "void f(void) { char *b = \"x\"; int a = 1; g(a, b); }"),
        ("python", "declaration_order", "a = 1\nb = 'x'\n", "b = 'x'\na = 1\n"),
        ("c", "comments", "/* a */int/* b */f(void); // c\n", " int f(void);  \n"),
    ],
)  # fmt: skip
def test_what_the_rewrites_look_like(language, name, source, expected):
    # The name of a new variable is drawn; here it is called NEW.
    found = everywhere(source, language, name)
    results = {re.sub(r"for \w+ in iter", "for NEW in iter", result) for result in found}
    assert expected in results


def test_no_new_name_becomes_an_attribute_of_a_class():
    source = "class A:\n    if x:\n        y = 1\n"
    results = everywhere(source, "python", "dead_code")
    assert results and all(result.endswith(source) for result in results)


def test_constants_keep_their_value():
    source = "x = [0, 1, 10, 99, 100, 2147483647]\n"
    for result in everywhere(source, "python", "constants"):
        scope: dict[str, list[int]] = {}
        exec(result, scope)
        assert scope["x"] == [0, 1, 10, 99, 100, 2147483647]


SNIPPETS = {
    "c": 'int f(int n) {{\n    int t = 10; /* {0} */\n    const char *s = "{0}";\n'
    "    for (int i = 0; i < n; i++) {{\n        if (i > 3) t += i; else t--; // {0}\n    }}\n"
    "    while (t > 10) t /= 2;\n    return t + s[0];\n}}\n",
    "python": "def f(n):\n    '{0}'\n    t = 10  # {0}\n    s = '{0}'\n"
    "    for i in range(n):\n        if i > 3:\n            t += i  # {0}\n"
    "        else:\n            t -= len('{0}')\n    while t > 10:\n        t //= 2\n"
    "    return t, s\n",
}


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(sorted(SNIPPETS)),
    st.sampled_from(sorted(TRANSFORMATIONS)),
    st.text("äßéñ漢字→€😀𝔘 ́", min_size=1),
    st.integers(0, 50),
)
def test_letters_of_several_bytes_move_nothing(language, name, letters, seed):
    plain = transformed(SNIPPETS[language].format("@"), language, name, seed)
    wide = transformed(SNIPPETS[language].format(letters), language, name, seed)
    assert wide == (None if plain is None else plain.replace("@", letters))


def test_half_a_surrogate_pair_is_no_crash():
    result = transformed('char *s = "\ud800";', "c", "rename", 0)
    assert result is None or result.endswith(' = "\ud800";')


def test_nested_python_loops_have_iterators_of_their_own():
    rows = "\n".join(f"{'    ' * depth}for x{depth} in range(2):" for depth in range(12))
    source = f"total = 0\n{rows}\n{'    ' * 12}total += 1\n"
    for seed in range(20):
        result = transformed(source, "python", "loop", seed)
        scope: dict[str, int] = {}
        exec(result or "", scope)
        assert scope["total"] == 2**12
