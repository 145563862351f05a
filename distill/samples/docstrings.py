"""Python functions and the first line of their documentation, for language models that write it.

    python -m distill.samples.docstrings --out data/docstrings

writes ``docstrings.parquet`` (prompt, completion, document, split) and ``manifest.json``, of short
functions of the standard library of the Python that runs this: another version gives other rows.
A prompt is the function without its docstring, and three quotes; the completion is the docstring's
first line. No file is in two splits.
"""

from __future__ import annotations

import ast
import platform
import sys
import sysconfig
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from pyarrow import parquet

from distill.config import SPLITS
from distill.data.splits import split_of
from distill.samples import command
from distill.samples.manifest import valid_manifest, write_manifest
from distill.samples.prose_and_code import HOLDOUT, functions_in, library_files

OPENING = '"""'
MOST_CHARACTERS = 240
"""Of a function, without its docstring."""
FORMAT = 1


class Row(NamedTuple):
    prompt: str
    completion: str
    document: str
    split: str


def rows(library: Path) -> Iterator[Row]:
    """Of the files below ``library``, in their order; no function twice."""
    seen: set[str] = set()
    for document, source in library_files(library):
        split = SPLITS[split_of(document, HOLDOUT)]
        for function, summary in documented(source):
            if len(function) <= MOST_CHARACTERS and function not in seen:
                seen.add(function)
                yield Row(f"{function}\n{OPENING}", summary, document, split)


def documented(source: str) -> Iterator[tuple[str, str]]:
    """(a function without its docstring, the docstring's first line), of those with more to them
    than that: a body, and a line of two words or more."""
    lines = source.splitlines(keepends=True)
    for node in functions_in(source):
        summary = (ast.get_docstring(node) or "").strip().partition("\n")[0].strip()
        docstring, *rest = node.body
        if not rest or len(summary.split()) < 2 or OPENING in summary:
            continue
        assert docstring.end_lineno is not None
        is_apart = node.lineno < docstring.lineno and docstring.end_lineno < rest[0].lineno
        if not is_apart:  # it shares a line with the function's head or body
            continue
        first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
        kept = (
            lines[first - 1 : docstring.lineno - 1] + lines[docstring.end_lineno : node.end_lineno]
        )
        yield textwrap.dedent("".join(kept)).rstrip(), summary


def build(out: Path) -> str:
    """Write the data set into ``out`` unless it is there; returns the table that is printed."""
    identity = {"format": FORMAT, "python": platform.python_version()}
    file = out / "docstrings.parquet"
    manifest = valid_manifest(out, identity, [file])
    if manifest is None:
        found = list(rows(Path(sysconfig.get_path("stdlib"))))
        out.mkdir(parents=True, exist_ok=True)
        columns = [list(column) for column in zip(*found, strict=True)]
        parquet.write_table(pa.table(dict(zip(Row._fields, columns, strict=True))), file)
        counts = Counter(row.split for row in found)
        manifest = write_manifest(
            out, identity, [file], num_rows={split: counts[split] for split in SPLITS}
        )
    num_rows = manifest["num_rows"]
    return (
        "".join(f"{s:>12}" for s in SPLITS) + "\n" + "".join(f"{num_rows[s]:>12}" for s in SPLITS)
    )


def main(arguments: list[str] | None = None) -> int:
    out = command.parser("docstrings", __doc__).parse_args(arguments).out
    return command.run(lambda: build(out), out / "docstrings.parquet")


if __name__ == "__main__":
    sys.exit(main())
