"""Folders of causal language models: what is in them, without loading weights; and loading them.

As load.py for classifiers: no code from a folder is run, and nothing that is missing is made up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from distill.errors import ModelError
from distill.models.decoder import base_of as base_of
from distill.models.decoder import check_linear_head as check_linear_head
from distill.models.decoder import head_of as head_of
from distill.models.decoder import is_tied
from distill.models.expert_gates import GateInfo, gate_info
from distill.models.load import from_folder, read_config, refuse_missing, usable_positions
from distill.models.multimodal import auto_class, is_multimodal, text_part, whole_class
from distill.models.plain_head import described_whole, has_plain_head
from distill.models.quantised import check_quantised, quantisation
from distill.models.tokenizer import load_tokenizer, num_ids, tokenizer_fingerprint
from distill.models.weights import Stored, brief, shapes_of_floats, stored_tensors


@dataclass(frozen=True)
class LanguageInfo:
    """What a folder declares about its language model."""

    num_params: int  # a tied head once
    vocab_size: int  # rows of the head: at least num_tokens, those beyond are padding
    num_tokens: int  # of the tokenizer, added ones included
    max_positions: int  # tokens of the longest text; sys.maxsize where positions have no table
    hidden: int
    num_layers: int
    model_type: str
    is_tied: bool  # whether the head is the embeddings
    tokenizer_sha256: str  # of what it does, see data/tokens.py
    has_chat_template: bool
    gates: GateInfo | None = None  # None: dense


def check_language_folder(folder: str | Path, allow_pickle: bool = False) -> LanguageInfo:
    """Everything that can be known from config.json, the weights' headers and the tokenizer.

    Raises ModelError for a folder that could not be loaded and used afterwards.
    """
    folder = Path(folder)
    _refuse_gguf(folder)
    config = read_config(folder)
    _check_causal(folder, config)
    stored = stored_tensors(folder, allow_pickle)
    check_quantised(folder, config, stored)
    whole = _on_meta(folder, config)
    _check_stored(folder, whole, stored)
    model = _text_part(folder, whole) if is_multimodal(config) else whole
    config = model.config
    tokenizer = load_tokenizer(folder)
    width = head_of(model).out_features
    if num_ids(tokenizer) > width:
        raise ModelError(
            f"{folder}: the tokenizer has {num_ids(tokenizer)} tokens, the model's vocabulary only "
            f"{width}: put the tokenizer that the model was trained with there"
        )
    return LanguageInfo(
        num_params=model.num_parameters(),
        vocab_size=width,
        num_tokens=len(tokenizer),
        max_positions=usable_positions(config),
        hidden=head_of(model).in_features,
        num_layers=config.num_hidden_layers,
        model_type=config.model_type,
        is_tied=is_tied(model),
        tokenizer_sha256=tokenizer_fingerprint(folder),
        has_chat_template=bool(tokenizer.chat_template),
        gates=gate_info(model),
    )


def load_language_model(
    folder: str | Path,
    dtype: str = "float32",
    allow_pickle: bool = False,
    dropout: float | None = None,
) -> PreTrainedModel:
    """The folder's language model on the CPU, in eval mode.

    ``dtype``: float32 or bfloat16. ``dropout``: replaces the folder's. A missing weight is refused;
    a head that is tied to the embeddings is not missing.
    """
    _refuse_gguf(Path(folder))
    config = read_config(folder)
    _check_causal(Path(folder), config)
    model, missing = from_folder(auto_class(config), folder, allow_pickle, dtype, dropout)
    refuse_missing(folder, missing)
    return text_part(model) if is_multimodal(config) else model


def _refuse_gguf(path: Path) -> None:
    if path.is_dir() and not (path / "config.json").is_file():
        path = next(iter(sorted(path.glob("*.gguf"))), path)
    if path.suffix == ".gguf":
        raise ModelError(
            f"{path} is a GGUF file, and models are read from folders of safetensors: convert it "
            f"with python -m distill.models.gguf {path} --out FOLDER, and give that folder"
        )


def _check_causal(folder: Path, config: PretrainedConfig) -> None:
    kind = config.model_type
    expected = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind)
    if is_multimodal(config):
        expected = whole_class(config)
    # Encoders have a causal class too, which nobody trains. (GPT-like families have no masked one.)
    if (
        expected is None
        or kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES
        or getattr(config, "is_encoder_decoder", False)
    ):
        raise ModelError(
            f"{folder} is a {kind} model, not a causal language model (decoder-only, such as "
            "Llama, Qwen or GPT-2): give another folder, or set task: classification"
        )
    saved_as = getattr(config, "architectures", None)
    if saved_as and expected not in saved_as:
        raise ModelError(
            f"{folder} was saved from a {saved_as[0]}, which has no language-model head: save a "
            f"{expected} there"
        )


def _on_meta(folder: Path, config: PretrainedConfig) -> Any:
    """The model that config.json describes, without memory for its weights."""
    try:
        return described_whole(config)
    except Exception as error:  # whatever a family makes of impossible dimensions
        raise ModelError(f"{folder}/config.json cannot be used: {brief(error)}") from None


def _text_part(folder: Path, whole: PreTrainedModel) -> PreTrainedModel:
    """Of a multimodal model on the meta device."""
    try:
        model = text_part(whole)
    except ModelError as error:
        raise ModelError(f"{folder}: {error}") from None
    if {has_plain_head(part) for part in (model, whole) if _has_decoder(part)} == {True, False}:
        raise ModelError(
            f"{folder}: the text part of a {whole.config.model_type} model scales or caps its "
            "logits differently from the whole model: give a folder of a text model"
        )
    return model


def _has_decoder(model: PreTrainedModel) -> bool:
    try:
        base_of(model)
    except ModelError:  # Llama 4 holds a language model with its own head
        return False
    return True


def _check_stored(folder: Path, model: Any, stored: Mapping[str, Stored]) -> None:
    """Whether the weight files can hold the model. By name only where transformers keeps names.

    A quantised folder stores other numbers: the head is looked for, the rest is loading's to find.
    """
    is_quantised = quantisation(model.config) is not None
    shapes = {} if is_quantised else shapes_of_floats(stored)
    head = next(f"{name}.weight" for name, part in model.named_modules() if part is head_of(model))
    state = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in state.keys() & shapes.keys():
        if state[name] != shapes[name]:
            raise ModelError(
                f"{folder}: {name} is {list(shapes[name])} in the weight files, "
                f"{list(state[name])} by config.json: copy the whole model folder"
            )
    if is_tied(model):
        shapes = {name: shape for name, shape in shapes.items() if name != head}
    elif not _is_stored(head, stored, is_multimodal(model.config)):
        raise ModelError(
            f"{folder} lacks the language-model head ({head}): save the whole "
            f"{type(model).__name__} there, or set tie_word_embeddings in config.json if its head "
            "is its embeddings"
        )
    num_stored = sum(prod(shape) for shape in shapes.values())
    expected = model.num_parameters()
    if num_stored < expected and not is_quantised:
        raise ModelError(
            f"{folder} holds {num_stored:,} of the {expected:,} parameters that config.json "
            "describes: copy the folder again, or correct config.json"
        )


def _is_stored(head: str, stored: Iterable[str], anywhere: bool) -> bool:
    """``anywhere``: multimodal folders may have it at language_model.lm_head. Quantised ones have
    several tensors of a weight, whose names begin with its own."""
    leaf = ".".join(head.split(".")[-2:])
    return any(name.startswith(head) or (anywhere and f".{leaf}" in name) for name in stored)
