"""The first rows of a split as a classifier reads them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from distill.config import Experiment
from distill.data.corpus import Corpus
from distill.data.encode import encode
from distill.data.pieces import Pieces
from distill.errors import InputError
from distill.models.tokenizer import load_fast_tokenizer
from distill.tasks.checks.preview import Preview, PreviewRow, places_of, truncation_notes
from distill.tasks.classification.inputs import read_info, space_of
from distill.tasks.classification.labels import read_data, teacher_outputs
from distill.tasks.classification.students import tokenizer_folder
from distill.tasks.jobs import write_tokenizer
from distill.teachers.probability import is_pickle


def preview_corpus(experiment: Experiment) -> Corpus:
    """The rows as ``distill check`` reads them; where a teacher is a pickle (which would run code),
    cannot be opened or has other labels, by the data's own labels: a preview shows no order."""
    if not any(is_pickle(teacher.path) for teacher in experiment.teachers):
        with suppress(InputError, OSError):
            infos = {t.name: read_info(t.path, t.allow_pickle) for t in experiment.teachers}
            return read_data(experiment, teacher_outputs(experiment, infos))
    return read_data(experiment, {})


def preview_rows(experiment: Experiment, corpus: Corpus, split: str, num_rows: int) -> Preview:
    """The first ``num_rows`` rows of a split."""
    if corpus.features is not None:
        space_of(experiment.data, corpus)
        return Preview(_rows_of_features(corpus, split, num_rows))
    with _tokenizer(experiment, corpus) as tokenizer:
        return Preview(_texts(experiment, corpus, tokenizer, split, num_rows))


@contextmanager
def _tokenizer(experiment: Experiment, corpus: Corpus) -> Iterator[Any]:
    """The student's; one that a run would retrain is trained here too, on the same texts."""
    folder = tokenizer_folder(experiment)
    if experiment.student.vocab_size is None:
        yield load_fast_tokenizer(folder)
        return
    with tempfile.TemporaryDirectory() as own:
        yield load_fast_tokenizer(write_tokenizer(experiment.student, folder, corpus, Path(own)))


def _rows_of_features(corpus: Corpus, split: str, num_rows: int) -> list[PreviewRow]:
    rows = corpus.rows(split)[:num_rows]
    assert corpus.features is not None
    columns = corpus.features.columns
    found = []
    for i, (values, place) in enumerate(
        zip(corpus.features_of(rows).tolist(), places_of(corpus, rows), strict=True), 1
    ):
        tokens = [f"{value:.6g}" for value in values]
        is_named = len(columns) == len(tokens)
        named = [f"{n}={v}" for n, v in zip(columns, tokens, strict=True)] if is_named else tokens
        found.append(PreviewRow(split, i, ", ".join(named), tokens, [False] * len(tokens), *place))
    return found


def _texts(
    experiment: Experiment, corpus: Corpus, tokenizer: Any, split: str, num_rows: int
) -> list[PreviewRow]:
    rows = corpus.rows(split)[:num_rows]
    max_length, cut = experiment.data.max_length, experiment.data.cut
    pieces = Pieces(tokenizer)
    found = []
    texts = corpus.texts_of(rows)
    for i, (text, place) in enumerate(zip(texts, places_of(corpus, rows), strict=True), 1):
        encoded = encode(tokenizer, [text], max_length, cut)
        tokens = pieces.of(encoded.ids[0])
        shown = "\n".join(part for part in text if part is not None)
        notes = truncation_notes(bool(encoded.num_truncated), max_length, cut)
        found.append(PreviewRow(split, i, shown, tokens, [False] * len(tokens), *place, notes))
    return found
