"""A language model that reads several sequences on, and can forget what it read last.

What is forgotten stays in the key-value cache as slots that nobody attends to, until they are many:
sequences of one batch so forget different numbers of tokens, and a family of models needs no code
of its own. Shape suffixes: B sequences, G tokens read at once, S slots, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from distill.errors import ModelError, TrainingError
from distill.models.decoder import base_of, plain
from distill.models.load import usable_positions

SPARE_SLOTS = 64  # forgotten ones that are no reason yet to close the gaps


class KeyValueCache:
    """Of the last tokens of its prompts nothing is known yet: the first to :meth:`read` are they.

    Gradients are not recorded. Reading the same tokens in the same portions gives the same bits.
    """

    def __init__(
        self, model: PreTrainedModel, num_tokens: int, prompts: Sequence[Sequence[int]]
    ) -> None:
        """``num_tokens``: columns of the vocabulary that count."""
        self._model: Any = plain(model)
        self._num_tokens = num_tokens
        self._last_position = usable_positions(self._model.config) - 1
        self._cache = DynamicCache()
        device = self._model.device
        lengths = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
        self._alive_BS = torch.zeros(len(prompts), 0, dtype=torch.bool, device=device)
        self._next_B = torch.zeros_like(lengths)
        self._num_unsure = 0  # tokens read since the last keep
        # One forward at least, whatever the lengths: sharded ranks make as many as each other.
        ids_BG = torch.zeros(len(prompts), max(1, int(lengths.max())), dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            ids_BG[row, : len(prompt) - 1] = torch.as_tensor(prompt[:-1])
        self._feed(base_of(self._model), ids_BG.to(device))
        self.keep(lengths)

    @property
    def num_rows(self) -> int:
        return len(self._next_B)

    @property
    def num_bytes(self) -> int:
        """Of the keys and values."""
        layers: Any = self._cache.layers
        initialized = [layer for layer in layers if layer.is_initialized]
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in initialized)

    def read(self, tokens_BG: Tensor) -> Tensor:
        """float32[B, G, V]: the raw logits after each of these tokens; TrainingError if they hold
        NaN or infinity."""
        output = self._feed(self._model, tokens_BG.to(self._alive_BS.device))
        logits_BGV = output.logits[..., : self._num_tokens].float()
        # The largest is NaN where any is; a sampler would take token 0 without a word.
        if not logits_BGV.amax(-1).isfinite().all():
            raise TrainingError(
                f"the logits of a {self._model.config.model_type} model that generates or "
                "verifies hold NaN or infinity: check its weights, or run it in float32"
            )
        return logits_BGV

    def keep(self, num_B: Tensor) -> None:
        """Of the tokens read since the last keep, remember the first so many of each sequence."""
        num_B = num_B.to(self._alive_BS.device)
        places_G = torch.arange(self._num_unsure, device=num_B.device)
        self._alive_BS[:, -self._num_unsure :] = places_G < num_B[:, None]
        self._next_B += num_B
        self._num_unsure = 0
        num_alive = int(self._alive_BS.sum(1).max())
        if self._alive_BS.shape[1] > 2 * num_alive + SPARE_SLOTS:
            self._close_gaps(num_alive)

    def select(self, places_b: Tensor) -> None:
        """Go on with these sequences alone. Right after a keep."""
        assert self._num_unsure == 0
        places_b = places_b.to(self._alive_BS.device)
        self._cache.batch_select_indices(places_b)
        self._alive_BS, self._next_B = self._alive_BS[places_b], self._next_B[places_b]

    @torch.no_grad()
    def _feed(self, model: Any, tokens_BG: Tensor) -> Any:
        num_read = tokens_BG.shape[1]
        steps_G = torch.arange(num_read, device=tokens_BG.device)
        places_BG = self._next_B[:, None] + self._num_unsure + steps_G
        # Padding counts as known while it is read: it stands behind the tokens, so none sees it,
        # and a sequence that attends to nothing would leave NaN in its slots.
        self._alive_BS = torch.cat(
            [self._alive_BS, torch.ones_like(tokens_BG, dtype=torch.bool)], 1
        )
        self._num_unsure += num_read
        return model(
            input_ids=tokens_BG,
            attention_mask=self._alive_BS.long(),
            position_ids=places_BG.clamp(max=self._last_position),
            past_key_values=self._cache,
            use_cache=True,
        )

    def _close_gaps(self, num_alive: int) -> None:
        # Stable: slots stay in the order in which they were read.
        order_BS = self._alive_BS.long().argsort(dim=1, descending=True, stable=True)
        order_BS = order_BS[:, :num_alive]
        layers: Any = self._cache.layers
        for layer in layers:
            keys = layer.keys
            index = order_BS[:, None, :, None].expand(-1, keys.shape[1], -1, keys.shape[3])
            layer.keys = keys.gather(2, index)
            values = layer.values
            index = order_BS[:, None, :, None].expand(-1, values.shape[1], -1, values.shape[3])
            layer.values = values.gather(2, index)
        self._alive_BS = self._alive_BS.gather(1, order_BS)


def check_reads_on(key: str, model: Any, max_length: int) -> None:
    """Raise ModelError, naming ``key``, for a family that :class:`KeyValueCache` would misread.

    Those with a state instead of a cache (Mamba), and those that attend through a window, which
    counts slots, too narrow for ``max_length`` tokens and what may lie forgotten among them. Needs
    no weights.
    """
    config = plain(model).config
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or [])
    if not kinds:
        kinds = {"sliding_attention" if window else "full_attention"}
    others = kinds - {"full_attention", "sliding_attention"}
    if others or getattr(plain(model), "_is_stateful", False):
        shown = ", ".join(sorted(others)) or "recurrent"
        raise ModelError(
            f"{key}: a {config.model_type} model with {shown} layers has no key-value cache, which "
            "generation needs: use sampling.type dataset, or another model"
        )
    least = 2 * max_length + SPARE_SLOTS
    if "sliding_attention" in kinds and window is not None and window < least:
        raise ModelError(
            f"{key}: a {config.model_type} model attends to the last {window} positions, but "
            f"generation at data.max_length {max_length} needs {least}: lower data.max_length, use "
            "sampling.type dataset, or another model"
        )
