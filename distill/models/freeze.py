"""Parts of BERT-like encoders: training the top layers only, cutting layers off, embeddings.

Decoders of language models can be frozen too; language_student.py keeps some of their layers.

Shape suffixes: B rows, T tokens, H hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distill.errors import ModelError
from distill.models.decoder import base_of, head_of, is_causal, is_tied, layers_of


def train_top_layers(model: PreTrainedModel, n: int | None) -> None:
    """Freeze the embeddings and all but the top ``n`` layers; pooler and head always train.

    0 trains pooler and head alone, None everything, embeddings included. Of a language model the
    last norm trains always, and the head unless it is the embeddings.
    """
    if n is None:
        model.requires_grad_(True)
        return
    if is_causal(model):
        _train_top_of_decoder(model, n)
        return
    layers = _layers(model, n)
    encoder: Any = model.base_model
    model.requires_grad_(True)
    encoder.requires_grad_(False)
    for layer in list(layers)[len(layers) - n :]:
        layer.requires_grad_(True)
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler.requires_grad_(True)


def _train_top_of_decoder(model: PreTrainedModel, n: int) -> None:
    name, layers = layers_of(model)
    _check_enough(n, len(layers))
    base: Any = base_of(model)
    model.requires_grad_(False)
    for layer in list(layers)[len(layers) - n :]:
        layer.requires_grad_(True)
    head_of(model).requires_grad_(not is_tied(model))
    # What stands beside the layers and is no embedding: the last norm.
    for child_name, child in base.named_children():
        if child_name != name and not _has_embeddings(child):
            child.requires_grad_(True)


def _has_embeddings(module: nn.Module) -> bool:
    return any(isinstance(part, nn.Embedding) for part in module.modules())


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
    _check_enough(n, len(layers))
    return layers


def _check_enough(n: int, num_layers: int) -> None:
    if n > num_layers:
        raise ModelError(f"{n} layers requested of a model that has {num_layers}: request fewer")
