"""Whether a language model keeps packed sequences apart.

Blocks of packed sequences come without a mask: positions that start anew tell where one begins. A
family that reads no positions (Mamba, Bloom), or carries a state from token to token besides its
attention (Jamba), would let a sequence see those before it, and say nothing.

Shape suffixes: B rows, T tokens.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from distill.errors import ConfigError, ModelError
from distill.models.decoder import base_of, plain

LENGTH = 8
WAY_OUT = "set data.packing: false, or take another model"


def check_takes_positions(key: str, model: nn.Module) -> None:
    """Raise ConfigError, naming ``key``, for a family that cannot; needs no weights."""
    if "position_ids" not in inspect.signature(type(plain(model)).forward).parameters:
        raise ConfigError(
            f"{key}: a {plain(model).config.model_type} model reads no positions, so packed "
            f"sequences would see each other: {WAY_OUT}"
        )


@torch.no_grad()
def keeps_apart(model: nn.Module) -> bool:
    """Whether a sequence's hidden states do not depend on the one packed before it."""
    base = base_of(model)
    was_training = base.training
    base.eval()
    try:
        embeddings: Any = base.get_input_embeddings()
        ids_T = torch.arange(3 * LENGTH, device=base.device) * 7 + 1
        one_T, other_T, last_T = (ids_T % embeddings.num_embeddings).split(LENGTH)
        on_T = torch.arange(2 * LENGTH, device=base.device)

        def difference(places_T: Tensor) -> Tensor:
            """What it makes to the last sequence which one is before it."""
            ids_BT = torch.stack([torch.cat([one_T, last_T]), torch.cat([other_T, last_T])])
            found = base(input_ids=ids_BT, position_ids=places_T.expand(2, -1), use_cache=False)
            last_BTH = found.last_hidden_state[:, LENGTH:].float()
            return (last_BTH[0] - last_BTH[1]).norm()

        # A mixture of experts may round otherwise; a sequence in sight makes far more of it.
        return bool(difference(on_T % LENGTH) <= 0.01 * difference(on_T))
    finally:
        base.train(was_training)


def check_keeps_apart(who: str, model: nn.Module) -> None:
    """Raise ModelError unless ``keeps_apart``."""
    if not keeps_apart(model):
        raise ModelError(
            f"{who}: a {plain(model).config.model_type} model lets packed sequences see each "
            f"other: {WAY_OUT}"
        )
