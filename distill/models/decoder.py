"""The parts of a causal language model: the decoder, its layers, and the linear output layer.

All functions see through a peft wrapper. Shape suffixes: B rows, T tokens, H hidden, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from distill.errors import ModelError


def plain(model: Any) -> PreTrainedModel:
    """The transformers model, without its peft wrapper; low-rank updates stay in its layers."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def base_of(model: nn.Module) -> PreTrainedModel:
    """The decoder, whose ``last_hidden_state`` the output layer reads."""
    model = plain(model)
    base: Any = getattr(model, model.base_model_prefix, None) if model.base_model_prefix else None
    if not isinstance(base, PreTrainedModel):
        raise ModelError(
            f"a {type(model).__name__} has no decoder below a language-model head: use a "
            "…ForCausalLM model"
        )
    return base


def head_of(model: nn.Module) -> nn.Linear:
    """The output layer: hidden states to logits. Tied ones share the embeddings' weight."""
    head: Any = plain(model).get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise ModelError(
            f"the output layer of a {type(plain(model)).__name__} is {type(head).__name__}, not a "
            "linear one: use a …ForCausalLM model, and leave its head out of lora.targets"
        )
    return head


def is_causal(model: nn.Module) -> bool:
    """Whether it is a decoder under a language-model head."""
    model = plain(model)
    return not hasattr(model.base_model, "encoder") and model.get_output_embeddings() is not None


def is_tied(model: nn.Module) -> bool:
    """Whether the output layer's weight is the input embeddings'."""
    embeddings: Any = plain(model).get_input_embeddings()
    return head_of(model).weight is embeddings.weight


def layers_of(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The decoder's layers, and their name within it (``layers``, ``h``)."""
    base = base_of(model)
    for name, module in base.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == base.config.num_hidden_layers:
            return name, module
    raise ModelError(
        f"the layers of a {base.config.model_type!r} model are not one list: leave init_from and "
        "train_layers out"
    )


@torch.no_grad()
def has_linear_head(model: nn.Module) -> bool:
    """Whether its logits are bit-identical to head(last hidden state) on a few tokens.

    Not so for models that cap or scale their logits afterwards (Gemma 2, Cohere).
    """
    base, head = base_of(model), head_of(model)
    was_training = model.training
    model.eval()
    try:
        ids_BT = (torch.arange(16, device=base.device) * 7 % head.out_features).unsqueeze(0)
        hidden_BTH = base(input_ids=ids_BT, use_cache=False).last_hidden_state
        logits_BTV = model(input_ids=ids_BT, use_cache=False).logits
        # Exactly: the same product of the same numbers. A cap hardly moves small logits.
        # NaN counts as equal: broken weights are found, and named, at the first answer.
        found_BTV, own_BTV = head(hidden_BTH).float(), logits_BTV.float()
        return torch.equal(found_BTV.nan_to_num(), own_BTV.nan_to_num())
    finally:
        model.train(was_training)


def check_linear_head(
    model: nn.Module, key: str, way_out: str = "set its wire.type: dense"
) -> None:
    """Raise ModelError, naming ``key``, unless ``has_linear_head``."""
    if not has_linear_head(model):
        raise ModelError(
            f"{key}: a {plain(model).config.model_type} model changes its logits after the output "
            "layer (it caps or scales them), so hidden states do not give them back: " + way_out
        )
