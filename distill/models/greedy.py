"""Greedy generation: the most probable next token again and again.

Shape suffixes: B prompts of a batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from distill.errors import Interrupted, ModelError
from distill.models.load import usable_positions


def end_ids(
    model: PreTrainedModel, tokenizer: Any, turn_ends: Sequence[int] = ()
) -> tuple[int, ...]:
    """Tokens after which nothing follows, by the tokenizer and by the model's own settings, and
    those that end an answer by a chat template."""
    own: Any = getattr(model.generation_config, "eos_token_id", None)
    found = [*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id, *turn_ends]
    return tuple(sorted({token for token in found if token is not None}))


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    ends: Sequence[int],
    batch_size: int = 8,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[list[int]]:
    """The most probable next token again and again, for each prompt; without the end token.

    It stops at a token of ``ends``, after ``max_new_tokens``, or at the model's last position. The
    model's own settings of sampling and penalties are passed over. The model is left in the mode it
    was in. Raises ModelError for a prompt that fills the model's positions.
    """
    positions = usable_positions(model.config)
    room = [min(max_new_tokens, positions - len(prompt)) for prompt in prompts]
    if prompts and min(room) < 1:
        longest = max(map(len, prompts))
        raise ModelError(
            f"a prompt of {longest} tokens leaves none of the model's {positions} positions for an "
            "answer: shorten it, or raise data.max_length"
        )
    was_training = model.training
    model.eval()
    written: dict[int, list[int]] = {}
    try:
        for rows in _batches(prompts, room, batch_size):
            if should_stop():
                raise Interrupted("stopped during the evaluation; the trained student is kept")
            answers = _generate([prompts[row] for row in rows], model, room[rows[0]], ends)
            written |= dict(zip(rows, answers, strict=True))
    finally:
        model.train(was_training)
    return [written[row] for row in range(len(prompts))]


def _batches(
    prompts: Sequence[Sequence[int]], room: Sequence[int], size: int
) -> Iterator[list[int]]:
    """Rows of about equal length, with the same room."""
    order = sorted(range(len(prompts)), key=lambda row: (room[row], len(prompts[row])))
    batch: list[int] = []
    for row in order:
        if batch and (len(batch) == size or room[row] != room[batch[0]]):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _generate(
    prompts: Sequence[Sequence[int]], model: Any, num_new: int, ends: Sequence[int]
) -> list[list[int]]:
    longest = max(map(len, prompts))
    ids_BT = torch.zeros(len(prompts), longest, dtype=torch.int64)
    mask_BT = torch.zeros_like(ids_BT)
    for row, prompt in enumerate(prompts):  # on the left, so that all go on at the same place
        ids_BT[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask_BT[row, longest - len(prompt) :] = 1
    output_BT = greedily(model, ids_BT, mask_BT, num_new, ends)
    return [list(_until(ends, row)) for row in output_BT[:, longest:].tolist()]


def greedily(
    model: Any, ids_BT: torch.Tensor, mask_BT: torch.Tensor, num_new: int, ends: Sequence[int] = ()
) -> torch.Tensor:
    """int64[B, T + up to num_new]: the prompts and what follows; padding after an end."""
    settings = GenerationConfig(
        max_new_tokens=num_new,
        do_sample=False,
        eos_token_id=list(ends) or None,
        pad_token_id=ends[0] if ends else 0,
    )
    kept, model.generation_config = model.generation_config, settings  # or its own fill the gaps
    try:
        return model.generate(
            input_ids=ids_BT.to(model.device), attention_mask=mask_BT.to(model.device)
        )
    finally:
        model.generation_config = kept


def _until(ends: Iterable[int], tokens: Iterable[int]) -> Iterator[int]:
    for token in tokens:
        if token in ends:
            return
        yield token
