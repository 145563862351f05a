from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.transform import LANGUAGES, Code, fresh_name, identifiers, rename
from distill.transform.source import COMMENTS
from distill.transform.words import NAMES, reserved
from tests.transform.programs import programs

CORPUS = [
    (language, source)
    for language in LANGUAGES
    for source in programs(language).values()
    if Code.parse(source, language).is_valid
]


@st.composite
def renamings(draw: st.DrawFn) -> tuple[Code, dict[str, str]]:
    language, source = draw(st.sampled_from(CORPUS))
    code = Code.parse(source, language)
    old = draw(st.lists(st.sampled_from(identifiers(code) or ("",)), unique=True, max_size=6))
    rng = Random(draw(st.integers(0, 2**32)))
    names: dict[str, str] = {}
    for name in old:
        like = [word for word in NAMES if word not in names.values()]
        names[name] = fresh_name(code, rng, like) if name else ""
    names.pop("", None)
    return code, names


@settings(max_examples=60, deadline=None)
@given(renamings())
def test_renaming_back_gives_the_original(renaming):
    code, names = renaming
    there = Code.parse(rename(code, names), code.language)
    assert there.is_valid
    assert set(names.values()) <= set(identifiers(there))
    back = {new: old for old, new in names.items()}
    if there.names & names.keys():
        # A member of the same spelling stayed, and is a name that occurs.
        with pytest.raises(ValueError, match="taken"):
            rename(there, back)
    else:
        assert rename(there, back) == code.text


@settings(max_examples=60, deadline=None)
@given(renamings())
def test_renaming_changes_these_names_and_no_other_byte(renaming):
    code, names = renaming
    there = Code.parse(rename(code, names), code.language)
    before, after = _tokens(code), _tokens(there)
    assert len(before) == len(after)
    for (kind, old), (_, new) in zip(before, after, strict=True):
        assert new == old or (kind.endswith("identifier") and names[old] == new)
    for kind, text in after:
        is_member_or_label = kind in ("field_identifier", "statement_identifier")
        if kind.endswith("identifier") and not is_member_or_label and text in names:
            # Only as a member, a keyword argument or a label, which are other names.
            assert code.language in ("python", "java")


def _tokens(code: Code) -> list[tuple[str, str]]:
    return [
        (node.type, code.slice(node).decode())
        for node in code.nodes
        if node.child_count == 0 or node.type in COMMENTS
    ]


@pytest.mark.parametrize(
    ("language", "source", "expected"),
    [
        ("c", "int f(int a) { return a + g(b); }", ("f", "a")),
        ("c", "int main(int argc, char **argv) { return argc; }", ("argc", "argv")),
        ("c", "struct s { int m; }; int f(struct s *p) { return p->m; }", ("s", "f", "p")),
        ("c", "#define M(x) (x)\nint f(int x, int y) { return M(y) + x; }", ("f",)),
        ("c", "#define n 3\nint f(int n2) { return n2 + n; }", ("f", "n2")),
        ("c", "enum e { A, B }; int f(enum e k) { return k == A; }", ("e", "f", "k")),
        ("c", "extern int x; int f(void) { int y = x; return y; }", ("f", "y")),
        ("c", "int f(void) { int x = 1; return x; } int g(void) { return x; }", ("f", "g")),
        ("c", "int read(int a) { return a; }", ("a",)),
        ("c", "int f(int a) { puts(__func__); return a; }", ()),
        ("c", "int f(int a) { l: a--; if (a) goto l; return a; }", ("f", "a")),
        ("c", "int f(int a) { LOG(a); int b = a; return b; }", ("f", "b")),
        ("c", "int f(int a {", ()),
        ("cpp", "class A { int m; void f() { int k = m; } };", ("A", "k")),
        ("cpp", "int f() { int m = 1; return m; } class A { int m; };", ("f", "A")),
        ("cpp", "void swap(A &a, A &b) { std::swap(a.x, b.x); }", ("a", "b")),
        ("cpp", "void A::run(int n) { go(n); }", ("n",)),
        ("cpp", 'extern "C" { int f(int a) { return a; } }', ("a",)),
        ("cpp", "template <class T> T f(T t) { return [x = t](T y) { return x + y; }(t); }",
         ("T", "f", "t", "x", "y")),
        ("java", "class A { int f; int g(int p) { int l = p + f; return l; } }", ("p", "l")),
        ("java", "class A { static int g(int p) { return p; } int h() { return g(1); } }",
         ("g", "p")),
        ("java", "class A { static int g(int p) { return p; } int h(A a) { return a.g(1); } }",
         ("p", "a")),
        ("python", "def f(a, b=1):\n    return a.b + b\nf(1, b=2)\n", ("f", "a")),
        ("python", "import os as o\ndef f(p):\n    return o.path(p)\n", ("f", "p")),
        ("python", "class C:\n    x = 1\n    def m(self, y):\n        return self.x + y\n",
         ("C", "y")),
        ("python", "def f():\n    len = 1\n    return len\n", ("f",)),
        ("python", "def f():\n    x = 1\n    return x\ndef g():\n    return x\n", ("f", "g")),
        ("python", "def f(x):\n    return f'{x=}'\n", ("f",)),
        ("python", "def f(x):\n    return eval('x')\n", ()),
        ("python", "def f(x):\n    y = 2\n    return locals()\n", ()),
        ("python", "f = lambda k, y: k + y\nf(1, y=2)\n", ("f", "k")),
        ("python", "class C(B):\n    def m(self, y):\n        z = y\n        return z\n", ("z",)),
        ("python", "def f(x):\n    return x\npatch('lib.f')\n", ("x",)),
        ("python", "try:\n    x = 1\nexcept TypeError as e:\n    print(e)\n", ()),
        ("c", "#define J(a, b) a##b\nint f(int xy) { return J(x, y); }", ()),
        ("python", "def f(x):\n    return getattr(x, 'f')\n", ("x",)),
        ("python", "@app.route\ndef f(x):\n    y = x\n    return y\n", ("y",)),
        ("python", "def f(y):\n    return [x for x in y], [y for y in x]\n", ("f", "y")),
        ("python", "class C(Exception):\n    pass\n", ()),
    ],
)  # fmt: skip
def test_identifiers_are_those_that_are_safe_to_rename(language, source, expected):
    assert identifiers(Code.parse(source, language)) == expected


@pytest.mark.parametrize("language", LANGUAGES)
def test_shipped_names_are_enough_and_none_is_reserved(language):
    free = [name for name in NAMES if name not in reserved(language)]
    assert len(free) > 150 and len(set(free)) == len(free)


def test_a_fresh_name_is_taken_from_like_if_one_is_usable():
    code = Code.parse("int f(int n) { return n; } /* total */", "c")
    like = ["n", "total", "read", "int", "MAX", "_x", "2b", "row"]
    assert {fresh_name(code, Random(seed), like) for seed in range(5)} == {"row"}
    assert fresh_name(code, Random(0), like[:-1]) in NAMES


def test_fresh_names_never_run_out():
    code = Code.parse(f"int f(void) {{ return 0; }} // {' '.join(NAMES)}", "c")
    name = fresh_name(code, Random(0))
    assert name not in code.words and name.rstrip("0123456789") in NAMES


@pytest.mark.parametrize("new", ["b", "c", "member", "while", "printf", "2x", "M", "", "a b"])
def test_a_new_name_that_is_taken_reserved_or_no_name_is_refused(new):
    code = Code.parse("int f(int a, int b) { return a + b + c + s.member; }\n#define M 1\n", "c")
    with pytest.raises(ValueError, match="'a' cannot become"):
        rename(code, {"a": new})


def test_two_names_cannot_become_one_and_unknown_names_are_refused():
    code = Code.parse("int f(int a, int b) { return a + b + c; }", "c")
    with pytest.raises(ValueError, match="taken"):
        rename(code, {"a": "x", "b": "x"})
    with pytest.raises(ValueError, match="'c' cannot be renamed"):
        rename(code, {"c": "x"})


def test_members_keywords_and_labels_of_the_same_spelling_stay():
    c = "int f(struct s *p, int x) { x: p->x = x; goto x; }"
    assert rename(Code.parse(c, "c"), {"x": "row"}) == (
        "int f(struct s *p, int row) { x: p->x = row; goto x; }"
    )
    python = "def f(a):\n    key = a.key\n    return sorted(a, key=key)\n"
    assert rename(Code.parse(python, "python"), {"key": "row"}) == (
        "def f(a):\n    row = a.key\n    return sorted(a, key=row)\n"
    )
    java = "class A { int f(int size) { size: while (true) { return o.size + o.size(size); } } }"
    assert rename(Code.parse(java, "java"), {"size": "row"}) == (
        "class A { int f(int row) { size: while (true) { return o.size + o.size(row); } } }"
    )
