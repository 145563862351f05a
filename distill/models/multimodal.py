"""The text part of a multimodal model, as the causal language model that it is on text alone.

Gemma 3, Qwen3.5 and others are published as one folder of a language model with parts that see or
hear. ``config.json`` then describes the text part under ``text_config``.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
)

from distill.errors import ModelError


def text_config(config: PretrainedConfig) -> PretrainedConfig:
    """That of the text part; of a model of text alone ``config`` itself."""
    inner = getattr(config, "text_config", None)
    return inner if isinstance(inner, PretrainedConfig) else config


def is_multimodal(config: PretrainedConfig) -> bool:
    """Whether it describes a language model with parts for images, video or sound."""
    return text_config(config) is not config and whole_class(config) is not None


def whole_class(config: PretrainedConfig) -> str | None:
    """The class of the whole model with a language-model head; None where there is none."""
    names: Any = MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES
    return names.get(config.model_type)


def auto_class(config: PretrainedConfig) -> Any:
    """What loads a folder with this configuration as a language model, whole."""
    return AutoModelForMultimodalLM if is_multimodal(config) else AutoModelForCausalLM


def text_part(whole: PreTrainedModel) -> PreTrainedModel:
    """The language model in a multimodal one, by its own class, without the other parts.

    It shares its weights. Works on the meta device too. Raises ModelError for a family whose text
    part has no language model of its own in transformers.
    """
    config: Any = text_config(whole.config)
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelError(
            f"the text part of a {whole.config.model_type} model ({config.model_type}) has no "
            "language model of its own in transformers: give a folder of a text model"
        )
    head: Any = whole.get_output_embeddings()
    with torch.device("meta"):
        text: Any = AutoModelForCausalLM.from_config(config, dtype=whole.dtype)
    if (own := _part_of_type(whole, type(text))) is not None:  # as Llama 4 has it
        return own
    decoder = _part_of_type(whole, type(getattr(text, text.base_model_prefix)))
    if decoder is None or head is None:
        raise ModelError(
            f"the text part of a {whole.config.model_type} model is not a {type(text).__name__}: "
            "give a folder of a text model"
        )
    setattr(text, text.base_model_prefix, decoder)
    text.set_output_embeddings(head)
    text.config = decoder.config  # the one that its layers look into
    embeddings: Any = text.get_input_embeddings()
    text.config.tie_word_embeddings = head.weight is embeddings.weight
    text.generation_config = copy.deepcopy(whole.generation_config)
    return text.train(whole.training)


def _part_of_type(whole: nn.Module, kind: type) -> Any:
    return next((part for part in whole.modules() if type(part) is kind), None)
