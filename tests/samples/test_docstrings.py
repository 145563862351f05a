from pathlib import Path

import pyarrow.parquet as parquet

from distill.samples.docstrings import Row, documented, main, rows

SOURCE = '''
class A:
    @property
    def b(self):
        """Return the letter b.

        More of it.
        """
        return "b"

    def only_documented(self):
        """Has no body to read."""

    def one(self): """Shares a line with its head."""; return 1

    def word(self):
        """Word."""
        return 2

async def c(x):  # a comment
    """Add one to x."""
    # and another
    return x + 1
'''


def test_a_function_and_what_its_docstring_says_are_told_apart():
    assert list(documented(SOURCE)) == [
        ('@property\ndef b(self):\n    return "b"', "Return the letter b."),
        ("async def c(x):  # a comment\n    # and another\n    return x + 1", "Add one to x."),
    ]


def test_prompts_are_functions_and_no_function_comes_twice(tmp_path: Path):
    (tmp_path / "a.py").write_text(SOURCE)
    (tmp_path / "b.py").write_text(SOURCE.replace("b(self)", "z(self)"))
    found = list(rows(tmp_path))
    assert [row.completion for row in found] == [
        "Return the letter b.",
        "Add one to x.",
        "Return the letter b.",
    ]
    assert all(row.prompt.endswith('\n"""') for row in found)
    assert len({row.split for row in found if row.document == "code/a.py"}) == 1


def test_the_library_becomes_a_table(tmp_path: Path, capsys):
    assert main(["--out", str(tmp_path)]) == 0
    table = parquet.read_table(tmp_path / "docstrings.parquet")
    assert table.column_names == list(Row._fields)
    assert table.num_rows > 1000
    assert "is ready" in capsys.readouterr().out
    documents = {}
    for row in table.select(["document", "split"]).to_pylist():
        assert documents.setdefault(row["document"], row["split"]) == row["split"]
