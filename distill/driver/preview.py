"""The first rows of a split as the student reads them: ``distill preview``.

Needs the data and the student's tokenizer, and opens no weights.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from distill.config import SPLITS, Experiment
from distill.driver.checks.check import check_keys
from distill.errors import ConfigError, DataError
from distill.tasks import task_of
from distill.tasks.checks.preview import Preview, PreviewRow

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

TRAINED = "bold underline green"


def preview(experiment: Experiment, split: str = "train", num_rows: int = 3) -> Preview:
    """The first ``num_rows`` rows of a split that the student reads.

    Raises InputError for data, a split or a tokenizer that cannot be used.
    """
    if split not in SPLITS:
        raise ConfigError(f"--split {split} is not a split: use {', '.join(SPLITS)}")
    if num_rows < 1:
        raise ConfigError(f"--rows must be at least 1, got {num_rows}")
    check_keys(experiment, ("warm_start",))
    task = task_of(experiment)
    corpus = task.preview_corpus(experiment)
    if not len(corpus.rows(split)):
        there = ", ".join(f"{name} {len(corpus.rows(name)):,}" for name in SPLITS)
        raise DataError(f"--split {split}: the data has no such rows; it has {there}")
    return task.preview_rows(experiment, corpus, split, num_rows)


def render(found: Preview, console: Console) -> None:
    """Rows one below the other: a line about each, then its tokens, those trained on marked."""
    is_marked = any(any(one.learned) for one in found.shown)
    has_colour = console.is_terminal and console.color_system is not None and not console.no_color
    if is_marked:
        how = "bold, underlined and green" if has_colour else "in [[ ]]"
        console.print(f"trained on: tokens {how}", highlight=False, markup=False)
    for one in found.shown:
        console.print()
        console.print(_about(one), style="bold" if has_colour else None, highlight=False)
        console.print(_marked(one, has_colour), highlight=False)
    if found.num_masked:
        console.print()
        masked = f"{found.num_masked} rows between them have no target tokens: they are dropped"
        console.print(masked, highlight=False, markup=False)


def _about(one: PreviewRow) -> Text:
    from rich.text import Text

    parts = [f"{one.split} row {one.row}"]
    parts += [f"label {one.label}"] if one.label is not None else []
    parts += [f"domain {one.domain}"] if one.domain is not None else []
    counted = f"{len(one.tokens)} tokens"
    if any(one.learned):
        counted += f", {sum(one.learned)} trained on"
    return Text(_printable(" · ".join([*parts, counted, *one.notes])))


def _marked(one: PreviewRow, has_colour: bool) -> Text:
    """The tokens, a space between them unless they mark spaces themselves."""
    from rich.text import Text

    has_spaces = "".join(one.tokens) == one.text or any(t.startswith(" ") for t in one.tokens)
    between = "" if has_spaces else " "
    runs = []
    for is_trained, group in groupby(zip(one.tokens, one.learned, strict=True), lambda t: t[1]):
        run = between.join(_printable(piece) for piece, _ in group)
        if is_trained and not has_colour:
            run = f"[[{run}]]"
        runs.append(Text(run, TRAINED if is_trained and has_colour else ""))
    return Text(between).join(runs)


def _printable(piece: str) -> str:
    """A line break is shown and made; other control characters are written as \\x1b."""
    shown = "".join(
        c if c.isprintable() or c in "\n\u3000\xa0\u200d" else repr(c)[1:-1] for c in piece
    )
    return shown.replace("\n", "⏎\n")
