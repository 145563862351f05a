"""The first rows of a split as a language model reads them."""

from __future__ import annotations

from itertools import islice

from distill.config import Experiment
from distill.data.chat_template import chat_template_of
from distill.data.content import DocumentContent
from distill.data.corpus import Corpus, build_corpus
from distill.data.pieces import Pieces
from distill.data.sequences import Sequencer
from distill.models.tokenizer import load_fast_tokenizer
from distill.tasks.checks.preview import Preview, PreviewRow, places_of, truncation_notes
from distill.tasks.language_model.folders import tokenizer_folder

BATCH = 64
"""Documents that are tokenised together."""


def preview_corpus(experiment: Experiment) -> Corpus:
    """The rows as ``distill check`` reads them."""
    return build_corpus(experiment.data, experiment.seed, content=DocumentContent)


def preview_rows(experiment: Experiment, corpus: Corpus, split: str, num_rows: int) -> Preview:
    """The sequences of the first ``num_rows`` documents of a split that have target tokens."""
    tokenizer = load_fast_tokenizer(tokenizer_folder(experiment))
    max_length, cut = experiment.data.max_length, experiment.data.cut
    assert corpus.kind is not None
    template = chat_template_of(experiment.data)
    sequencer = Sequencer(tokenizer, corpus.kind, max_length, cut, template)
    pieces = Pieces(tokenizer)
    rows = corpus.rows(split)
    documents = corpus.documents(split)
    shown: list[PreviewRow] = []
    first = rows.start
    num_shown = num_masked = 0
    while part := list(islice(documents, min(BATCH, num_rows))):
        here = range(first, first + len(part))
        for row, found, place in zip(
            here, sequencer.of(part, first), places_of(corpus, here), strict=True
        ):
            if not found.sequences:
                num_masked += 1
                continue
            number = row - rows.start + 1
            for i, sequence in enumerate(found.sequences, 1):
                ids = sequence.ids.tolist()
                text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
                notes = truncation_notes(found.is_truncated, max_length, cut)
                if len(found.sequences) > 1:
                    notes = (f"sequence {i} of {len(found.sequences)}", *notes)
                learned = sequence.in_loss.tolist()
                shown.append(
                    PreviewRow(split, number, text, pieces.of(ids), learned, *place, notes)
                )
            num_shown += 1
            if num_shown == num_rows:
                return Preview(shown, num_masked)
        first += len(part)
    return Preview(shown, num_masked)
