"""Whether language models can read the rows: in the student's tokens, or in their own."""

from __future__ import annotations

from collections.abc import Mapping

from distill.config import Experiment, Serving
from distill.data.alignment import for_teacher
from distill.data.blocks import Blocks
from distill.data.emitted import emitted_id, emitted_text
from distill.errors import ConfigError
from distill.models.language import LanguageInfo
from distill.models.tokenizer import load_tokenizer
from distill.models.vocabulary import WAY_OUT, differing, quoted, same_tokenizer

Served = Mapping[str, tuple[str, LanguageInfo, Serving]]
"""Models by key: folder, what its files declare, and how it is served."""


def check_one_tokenizer(trial: Experiment, served: Served, tokenizer: str) -> None:
    """Raise for a trial that cannot share teachers with trials that send each its own tokens."""
    for key, (folder, _, _) in served.items():
        if not same_tokenizer(tokenizer, folder):
            raise ConfigError(
                f"search.space.objective.type {trial.objective.type}: the tokenizer of {key} "
                f"({folder}) has different added tokens from the student's ({tokenizer}), and "
                "other trials send each teacher its own tokens: search only over objectives for "
                "different tokenizers, or only over others"
            )


def check_aligned(experiment: Experiment, served: Served, tokenizer: str, blocks: Blocks) -> None:
    """Raise unless teachers with other tokenizers can read the same texts, which are aligned here,
    once, and those with nearly the same tokens the same blocks."""
    for key, (folder, info, _) in served.items():
        if not experiment.objective.crosses_tokenizers:
            _check_emitted(key, folder, tokenizer, blocks)
            continue
        if not same_tokenizer(tokenizer, folder):
            longest = for_teacher(blocks, folder).longest
            if longest > info.max_positions:
                raise ConfigError(
                    f"{key} has {info.max_positions} positions, and its own tokenizer makes "
                    f"{longest} tokens of a text of data.max_length {experiment.data.max_length}: "
                    "lower it, or give another teacher"
                )


def _check_emitted(key: str, folder: str, tokenizer: str, blocks: Blocks) -> None:
    """Raise for rows with an added token that student and teacher do not share."""
    added = differing(load_tokenizer(tokenizer), load_tokenizer(folder))
    if not added:
        return
    # Only plain texts can be tokenised again by a teacher.
    way_out = WAY_OUT if blocks.kind == "text" else "use a teacher with the student's tokenizer"
    if blocks.kind == "messages":
        way_out += ", or a chat template without it"
    found = emitted_id(blocks, added)
    if found is not None:
        ours, theirs = added[found]
        meaning = f"is {quoted(theirs)} to the teacher's ({folder})"
        if ours == theirs:
            meaning = f"the teacher's ({folder}) matches in texts by other rules (added_tokens)"
        raise ConfigError(
            f"{key}: the rows contain {quoted(ours)}, id {found} of the student's tokenizer "
            f"({tokenizer}), which {meaning}: {way_out}"
        )
    text = emitted_text(blocks, [theirs for _, theirs in added.values() if theirs])
    if text is not None:
        raise ConfigError(
            f"{key}: the rows contain the text {text!r}, one token of the teacher's tokenizer "
            f"({folder}) and several of the student's ({tokenizer}): {way_out}"
        )
