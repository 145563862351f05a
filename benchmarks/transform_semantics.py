"""Whether transformed programs still do what they did: all of the corpus, compiled and run.

    python -m benchmarks.transform_semantics --seeds 2 --chains 3 \
        --out benchmarks/results/transform_semantics.md

The committed result is that of this command; without --seeds and --chains there are more cases.

Every program of tests/transform/corpus goes through every transformation with several seeds, and
through chains of two and three. A case is a program whose text a transformation changed; it is
compiled and run, and prints and ends as before or counts as a semantic change. The same text
reached twice in one row counts once. Minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from random import Random
from typing import NamedTuple

from distill import __version__
from distill.transform import LANGUAGES, TRANSFORMATIONS, Code, transformed
from tests.transform.programs import Outcome, can_run, outcomes, programs

CHAIN = "chain of 2 or 3"
COLUMNS = ("tried", "changed", "cases", "run", "semantic changes", "refused to parse")


class Case(NamedTuple):
    language: str
    transformation: str
    program: str
    seed: int
    text: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--languages", nargs="+", default=list(LANGUAGES), choices=LANGUAGES)
    parser.add_argument("--seeds", type=int, default=4, help="for each program and transformation")
    parser.add_argument("--chains", type=int, default=8, help="for each program")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="print programs that changed meaning")
    parser.add_argument("--out", type=Path, help="table; the counts go next to it as .json")
    args = parser.parse_args()
    started = time.perf_counter()
    counts: dict[str, dict[str, Counter[str]]] = {}
    failed: list[Case] = []
    for language in args.languages:
        rows = {name: Counter() for name in (*TRANSFORMATIONS, CHAIN)}
        cases = list(_cases(language, args, rows))
        broken = _run(language, cases, rows)
        failed += broken
        counts[language] = rows
        print(f"{language}: {len(cases)} cases, {len(broken)} semantic changes", flush=True)
        for case in broken if args.show else ():
            print(f"--- {case[:4]}\n{case.text}")
    took = time.perf_counter() - started
    table = _table(counts, args, took)
    print(table)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(table)
        record = {
            "date": str(date.today()),
            "distill": __version__,
            "compilers": _versions(),
            "seeds": args.seeds,
            "chains": args.chains,
            "seconds": round(took),
            "counts": counts,
            "failed": [case._asdict() for case in failed],
        }
        args.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


def _cases(
    language: str, args: argparse.Namespace, rows: dict[str, Counter[str]]
) -> Iterator[Case]:
    """What the transformations make of the corpus; counts what they refuse."""
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    for program, source in programs(language).items():
        if not Code.parse(source, language).is_valid:
            for row in rows.values():
                row["refused to parse"] += 1
            continue
        for name, row in rows.items():
            seen = {source}
            tries = (
                range(args.first_seed, args.first_seed + args.chains) if name == CHAIN else seeds
            )
            for seed in tries:
                row["tried"] += 1
                text = (
                    chained(source, language, seed)
                    if name == CHAIN
                    else transformed(source, language, name, seed)
                )
                row["changed"] += text is not None
                if text is not None and text not in seen:
                    seen.add(text)
                    row["cases"] += 1
                    yield Case(language, name, program, seed, text)


def chained(source: str, language: str, seed: int) -> str | None:
    """Two or three different transformations one after the other; None if fewer than two apply."""
    rng = Random(f"chain {seed}")
    applied, text = 0, source
    wanted = rng.randint(2, 3)
    for name in rng.sample(list(TRANSFORMATIONS), len(TRANSFORMATIONS)):
        changed = transformed(text, language, name, seed)
        if changed is not None:
            applied, text = applied + 1, changed
        if applied == wanted:
            break
    return text if applied > 1 else None


def _run(language: str, cases: list[Case], rows: dict[str, Counter[str]]) -> list[Case]:
    """The cases that do something else than before."""
    if not can_run(language):
        print(f"{language}: no compiler here, parsed only")
        return []
    originals = programs(language)
    texts = list(dict.fromkeys([*originals.values(), *(case.text for case in cases)]))
    with tempfile.TemporaryDirectory() as folder:
        printed: dict[str, Outcome] = dict(
            zip(texts, outcomes(texts, language, Path(folder)), strict=True)
        )
    broken = []
    for case in cases:
        before = printed[originals[case.program]]
        assert before.code >= 0, f"{case.program} of the corpus: {before.stdout}"
        rows[case.transformation]["run"] += 1
        if printed[case.text] != before:
            rows[case.transformation]["semantic changes"] += 1
            broken.append(case)
            print(f"{case[:4]}: {before} became {printed[case.text]}")
    return broken


def _table(
    counts: dict[str, dict[str, Counter[str]]], args: argparse.Namespace, took: float
) -> str:
    total = Counter()
    lines = ["| language | transformation | " + " | ".join(COLUMNS) + " |"]
    lines.append("|---|---|" + "---:|" * len(COLUMNS))
    for language, rows in counts.items():
        for name, row in rows.items():
            total.update(row)
            cells = " | ".join(str(row[column]) for column in COLUMNS)
            lines.append(f"| {language} | {name} | {cells} |")
    cells = " | ".join(str(total[column]) for column in COLUMNS[:-1])
    lines.append(f"| **all** | | {cells} | |")
    sizes = ", ".join(f"{len(programs(language))} {language}" for language in counts)
    about = (
        f"{total['semantic changes']} semantic changes in {total['run']} cases that were compiled "
        f"and run: the same standard output and exit code before and after. Programs: {sizes}; "
        f"{args.seeds} seeds for each program and transformation, {args.chains} chains; "
        f"{date.today()}, distill {__version__}, {', '.join(_versions().values())}, "
        f"{took / 60:.0f} minutes."
    )
    legend = (
        "*tried*: program × seed; *changed*: the text became another; *cases*: without the same "
        "text twice; *refused to parse*: programs that need a preprocessor to be read, which every "
        "transformation leaves alone."
    )
    return "\n".join(
        ["# Do transformed programs do the same?", "", about, "", *lines, "", legend, ""]
    )


def _versions() -> dict[str, str]:
    versions = {"python": f"Python {platform.python_version()}"}
    for tool, flag in (("gcc", "--version"), ("g++", "--version"), ("javac", "-version")):
        if can_run({"gcc": "c", "g++": "cpp", "javac": "java"}[tool]):
            shown = subprocess.run([tool, flag], capture_output=True, text=True)
            versions[tool] = (shown.stdout or shown.stderr).splitlines()[0]
    return versions


if __name__ == "__main__":
    main()
