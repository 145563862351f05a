"""Whether a language model's logits are what its output layer makes of the last hidden state.

Shape suffixes: B rows, T tokens, H hidden.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import MoeModelOutputWithPast

from distill.models.decoder import base_of, head_of
from distill.models.load import read_config
from distill.models.multimodal import auto_class, is_multimodal, text_part
from distill.models.tokenizer import quiet


def described(folder: str | Path) -> PreTrainedModel:
    """The model that config.json describes, on the meta device: no weight is read."""
    config = read_config(folder)
    whole = described_whole(config)
    return text_part(whole) if is_multimodal(config) else whole


def described_whole(config: PretrainedConfig) -> PreTrainedModel:
    """With the parts of a multimodal model that see or hear."""
    with quiet(), torch.device("meta"):
        return auto_class(config).from_config(config, dtype=torch.float32)


@torch.no_grad()
def has_plain_head(model: nn.Module) -> bool | None:
    """Whether it gives the head the decoder's output, and out what the head returns.

    Not so for models that cap or scale either (Gemma 2, Cohere, Granite). Of a model on the meta
    device: a tensor that was changed is another one, or another version of it. None where it cannot
    be known, for a family that goes past its own base model (OPT): ``has_linear_head`` then tells,
    from the weights.
    """
    base, head = base_of(model), head_of(model)
    last_BTH = torch.empty(1, 2, head.in_features, device="meta")
    seen: list[tuple[Any, Any, int]] = []
    called: list[bool] = []

    def decoder(*_: Any, **__: Any) -> _Decoded:
        called.append(True)
        return _Decoded(last_hidden_state=last_BTH)  # type: ignore[arg-type]

    def look(_: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        seen.append((given[0], made, made._version))

    own: Any = base
    hook = head.register_forward_hook(look)
    forward = own.forward
    own.forward = decoder
    try:
        logits = model(input_ids=torch.zeros(1, 2, dtype=torch.long, device="meta")).logits
    finally:
        own.forward = forward
        hook.remove()
    if len(seen) != 1:
        return False
    given, made, version = seen[0]
    is_made = logits is made and made._version == version
    if not called:
        return None if is_made else False
    is_given = given.untyped_storage()._cdata == last_BTH.untyped_storage()._cdata
    return is_given and last_BTH._version == 0 and is_made


class _Decoded(MoeModelOutputWithPast):
    """A decoder's output, with None for whatever else a family looks for in its own."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
