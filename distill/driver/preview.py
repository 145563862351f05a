"""The first rows of a split as the student reads them: ``distill preview``.

Needs the data and the student's tokenizer, and opens no weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.config import SPLITS, Experiment
from distill.data.chat_template import chat_template_of
from distill.data.content import DocumentContent
from distill.data.corpus import Corpus, build_corpus
from distill.data.encode import encode
from distill.data.pieces import Pieces
from distill.data.sequences import Sequencer
from distill.driver.checks.check import tokenizer_folder
from distill.errors import ConfigError, DataError, InputError
from distill.models.tokenizer import load_fast_tokenizer
from distill.records import UNLABELLED
from distill.tasks.classification.inputs import check_kind, read_info, space_of
from distill.tasks.classification.labels import read_data, teacher_outputs
from distill.tasks.jobs import write_tokenizer
from distill.tasks.language_model import check as check_language
from distill.teachers.probability import is_pickle

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

BATCH = 64
"""Documents that are tokenised together."""
TRAINED = "bold underline green"


@dataclass(frozen=True)
class Shown:
    """What the student reads at once: a row, or of a language model a sequence of one."""

    split: str
    row: int
    """Of the split, from 1."""
    text: str
    """Of a classifier the row's text (of a pair both, a newline between) or its numbers; of a
    language model what the sequence's tokens stand for, special ones included."""
    tokens: list[str]
    """Decoded, each by itself: see :class:`distill.data.pieces.Pieces`. Of features: values."""
    learned: list[bool]
    """Whether each token is trained on (is in the loss mask). A classifier is trained on the label:
    none is."""
    label: str | None
    domain: str | None
    notes: tuple[str, ...] = ()
    """For people: which sequence it is, whether it is truncated."""

    def as_json(self) -> dict[str, Any]:
        return {
            "split": self.split,
            "text": self.text,
            "tokens": self.tokens,
            "learned": self.learned,
            "label": self.label,
            "domain": self.domain,
        }


@dataclass(frozen=True)
class Preview:
    shown: list[Shown]
    num_masked: int = 0
    """Rows of a language model before the last one shown that have no token to train on: they are
    dropped."""


def preview(experiment: Experiment, split: str = "train", num_rows: int = 3) -> Preview:
    """The first ``num_rows`` rows of a split that the student reads.

    Raises InputError for data, a split or a tokenizer that cannot be used.
    """
    if split not in SPLITS:
        raise ConfigError(f"--split {split} is not a split: use {', '.join(SPLITS)}")
    if num_rows < 1:
        raise ConfigError(f"--rows must be at least 1, got {num_rows}")
    check_language.check_task(experiment)
    is_language_model = experiment.is_language_model
    if not is_language_model:
        check_kind(experiment)
    corpus = _corpus(experiment)
    if not len(corpus.rows(split)):
        there = ", ".join(f"{name} {len(corpus.rows(name)):,}" for name in SPLITS)
        raise DataError(f"--split {split}: the data has no such rows; it has {there}")
    if corpus.features is not None:
        space_of(experiment.data, corpus)
        return Preview(_rows_of_features(corpus, split, num_rows))
    with _tokenizer(experiment, corpus) as tokenizer:
        if is_language_model:
            return _documents(experiment, corpus, tokenizer, split, num_rows)
        return Preview(_texts(experiment, corpus, tokenizer, split, num_rows))


def _corpus(experiment: Experiment) -> Corpus:
    """The rows as ``distill check`` reads them; where a teacher is a pickle (which would run code),
    cannot be opened or has other labels, by the data's own labels: a preview shows no order."""
    if experiment.is_language_model:
        return build_corpus(experiment.data, experiment.seed, content=DocumentContent)
    if not any(is_pickle(teacher.path) for teacher in experiment.teachers):
        with suppress(InputError, OSError):
            infos = {t.name: read_info(t.path, t.allow_pickle) for t in experiment.teachers}
            return read_data(experiment, teacher_outputs(experiment, infos))
    return read_data(experiment, {})


@contextmanager
def _tokenizer(experiment: Experiment, corpus: Corpus) -> Iterator[Any]:
    """The student's; one that a run would retrain is trained here too, on the same texts."""
    find = check_language.tokenizer_folder if experiment.is_language_model else tokenizer_folder
    folder = find(experiment)
    if experiment.student.vocab_size is None:
        yield load_fast_tokenizer(folder)
        return
    with tempfile.TemporaryDirectory() as own:
        yield load_fast_tokenizer(write_tokenizer(experiment.student, folder, corpus, Path(own)))


def _places(corpus: Corpus, rows: range) -> list[tuple[str | None, str | None]]:
    """Label and domain of each row."""
    labels, domains = corpus.labels_of(rows).tolist(), corpus.domains_of(rows).tolist()
    return [
        (
            None if label == UNLABELLED or not corpus.label_names else corpus.label_names[label],
            None if domain < 0 else corpus.domain_names[domain],
        )
        for label, domain in zip(labels, domains, strict=True)
    ]


def _rows_of_features(corpus: Corpus, split: str, num_rows: int) -> list[Shown]:
    rows = corpus.rows(split)[:num_rows]
    assert corpus.features is not None
    columns = corpus.features.columns
    found = []
    for i, (values, place) in enumerate(
        zip(corpus.features_of(rows).tolist(), _places(corpus, rows), strict=True), 1
    ):
        tokens = [f"{value:.6g}" for value in values]
        is_named = len(columns) == len(tokens)
        named = [f"{n}={v}" for n, v in zip(columns, tokens, strict=True)] if is_named else tokens
        found.append(Shown(split, i, ", ".join(named), tokens, [False] * len(tokens), *place))
    return found


def _texts(
    experiment: Experiment, corpus: Corpus, tokenizer: Any, split: str, num_rows: int
) -> list[Shown]:
    rows = corpus.rows(split)[:num_rows]
    max_length, cut = experiment.data.max_length, experiment.data.cut
    pieces = Pieces(tokenizer)
    found = []
    texts = corpus.texts_of(rows)
    for i, (text, place) in enumerate(zip(texts, _places(corpus, rows), strict=True), 1):
        encoded = encode(tokenizer, [text], max_length, cut)
        tokens = pieces.of(encoded.ids[0])
        shown = "\n".join(part for part in text if part is not None)
        notes = _truncation(bool(encoded.num_truncated), max_length, cut)
        found.append(Shown(split, i, shown, tokens, [False] * len(tokens), *place, notes))
    return found


def _truncation(is_truncated: bool, max_length: int, cut: str) -> tuple[str, ...]:
    return (f"truncated to {max_length} tokens (data.cut {cut})",) if is_truncated else ()


def _documents(
    experiment: Experiment, corpus: Corpus, tokenizer: Any, split: str, num_rows: int
) -> Preview:
    max_length, cut = experiment.data.max_length, experiment.data.cut
    assert corpus.kind is not None
    template = chat_template_of(experiment.data)
    sequencer = Sequencer(tokenizer, corpus.kind, max_length, cut, template)
    pieces = Pieces(tokenizer)
    rows = corpus.rows(split)
    documents = corpus.documents(split)
    shown: list[Shown] = []
    first = rows.start
    num_shown = num_masked = 0
    while part := list(islice(documents, min(BATCH, num_rows))):
        here = range(first, first + len(part))
        for row, found, place in zip(
            here, sequencer.of(part, first), _places(corpus, here), strict=True
        ):
            if not found.sequences:
                num_masked += 1
                continue
            number = row - rows.start + 1
            for i, sequence in enumerate(found.sequences, 1):
                ids = sequence.ids.tolist()
                text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
                notes = _truncation(found.is_truncated, max_length, cut)
                if len(found.sequences) > 1:
                    notes = (f"sequence {i} of {len(found.sequences)}", *notes)
                learned = sequence.learnt.tolist()
                shown.append(Shown(split, number, text, pieces.of(ids), learned, *place, notes))
            num_shown += 1
            if num_shown == num_rows:
                return Preview(shown, num_masked)
        first += len(part)
    return Preview(shown, num_masked)


# ---- for people ------------------------------------------------------------------------------


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


def _about(one: Shown) -> Text:
    from rich.text import Text

    parts = [f"{one.split} row {one.row}"]
    parts += [f"label {one.label}"] if one.label is not None else []
    parts += [f"domain {one.domain}"] if one.domain is not None else []
    counted = f"{len(one.tokens)} tokens"
    if any(one.learned):
        counted += f", {sum(one.learned)} trained on"
    return Text(_printable(" · ".join([*parts, counted, *one.notes])))


def _marked(one: Shown, has_colour: bool) -> Text:
    """The tokens, a space between them unless they mark spaces themselves."""
    from rich.text import Text

    says_blanks = "".join(one.tokens) == one.text or any(t.startswith(" ") for t in one.tokens)
    between = "" if says_blanks else " "
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
