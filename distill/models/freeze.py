"""Parts of BERT-like encoders: training the top layers only, cutting layers off, embeddings.

Shape suffixes: B rows, T tokens, H hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distill.errors import ModelError


def train_top_layers(model: PreTrainedModel, n: int | None) -> None:
    """Freeze the embeddings and all but the top ``n`` layers; pooler and head always train.

    0 trains pooler and head alone, None everything, embeddings included.
    """
    if n is None:
        model.requires_grad_(True)
        return
    layers = _layers(model, n)
    encoder: Any = model.base_model
    model.requires_grad_(True)
    encoder.requires_grad_(False)
    for layer in list(layers)[len(layers) - n :]:
        layer.requires_grad_(True)
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler.requires_grad_(True)


def keep_first_layers(model: PreTrainedModel, n: int) -> None:
    """Cut off all layers above the first ``n``, and say so in the model's configuration."""
    layers = _layers(model, n)
    encoder: Any = model.base_model
    encoder.encoder.layer = layers[:n]
    encoder.config.num_hidden_layers = n


@torch.no_grad()
def embed(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> Tensor:
    """features_BH, float32: the encoder's last hidden state, its mean over a row's own tokens.

    ``inputs``: ``Batch.inputs()``. The model stays in its mode: eval, for features without dropout.
    """
    hidden_BTH: Tensor = model.base_model(**inputs).last_hidden_state.float()
    mask_BT1 = inputs["attention_mask"].unsqueeze(-1).to(hidden_BTH.dtype)
    return (hidden_BTH * mask_BT1).sum(1) / mask_BT1.sum(1).clamp(min=1)


def _layers(model: PreTrainedModel, n: int) -> nn.ModuleList:
    layers: Any = getattr(getattr(model.base_model, "encoder", None), "layer", None)
    if not isinstance(layers, nn.ModuleList):
        raise ModelError(
            f"layers of a {model.config.model_type!r} model cannot be frozen or cut off: use a "
            "BERT-like encoder (BERT, RoBERTa, ELECTRA), or leave train_layers and layers out"
        )
    if n > len(layers):
        raise ModelError(f"{n} layers asked of a model that has {len(layers)}: ask for fewer")
    return layers
