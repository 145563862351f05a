"""Hugging Face folders: what is in them, without loading weights; and loading them, strictly.

No code from a folder is ever run: ``trust_remote_code`` is off and weights are safetensors, unless
``allow_pickle``. A weight that is missing is an error, never a silent random head.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from distill.config.labels import as_label
from distill.errors import ModelError
from distill.models.features import FeatureConfig, buffer_shapes
from distill.models.freeze import keep_first_layers
from distill.models.hub import not_found
from distill.models.multimodal import text_config
from distill.models.pooling import pool_by_mask
from distill.models.quantised import (
    as_plain,
    check_quantised,
    loading_options,
    quantisation,
)
from distill.models.reading import Reading, reading_of
from distill.models.tokenizer import load_tokenizer as load_tokenizer
from distill.models.tokenizer import pad_id, quiet
from distill.models.weights import brief, shapes_of_floats, stored_tensors
from distill.models.weights import weights_fingerprint as weights_fingerprint

_HEADS = (
    "classifier.weight",
    "classifier.out_proj.weight",
    "classification_head.out_proj.weight",
    "sequence_summary.summary.weight",
    "score.weight",
)
_READS_PADDING = ("convbert", "fnet", "nystromformer", "xlnet", "yoso")
"""Families whose logits of a row depend on how far it is padded on the right."""
_OFFSET_POSITIONS = (
    "roberta",
    "camembert",
    "longformer",
    "data2vec-text",
    "mpnet",
    "xlm-roberta-xl",
)
"""Families whose first token is at position pad + 1; so does it in every …roberta."""
_DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "dropout",
    "attention_dropout",
    "embedding_dropout",
    "mlp_dropout",
    "hidden_dropout",
    "attn_pdrop",
    "embd_pdrop",
    "resid_pdrop",
)


@dataclass(frozen=True)
class FolderInfo:
    """What a folder declares about its model."""

    label_names: tuple[str, ...]  # in class order; () without a classification head
    num_params: int  # floating-point numbers
    vocab_size: int
    max_positions: int  # tokens of the longest text; sys.maxsize where positions have no table
    hidden: int
    model_type: str
    num_layers: int
    has_classifier_head: bool
    num_features: int = 0  # 0: it reads text
    reading: Reading | None = None  # how it was shown texts, where distill exported it


def check_folder(folder: str | Path, allow_pickle: bool = False) -> FolderInfo:
    """Everything that can be known from config.json, the weights' headers and the tokenizer.

    Raises ModelError for a folder that could not be loaded and used afterwards.
    """
    folder = Path(folder)
    config = read_config(folder)
    stored = stored_tensors(folder, allow_pickle)
    shapes = shapes_of_floats(stored)
    if isinstance(config, FeatureConfig):
        return _feature_info(folder, config, shapes)
    text = _text_of_classifier(folder, config)
    check_quantised(folder, config, stored)
    num_tokens = len(load_tokenizer(folder))
    if num_tokens > text.vocab_size:
        raise ModelError(
            f"{folder}: the tokenizer has {num_tokens} tokens, the model's vocabulary only "
            f"{text.vocab_size}: put the tokenizer that the model was trained with there"
        )
    heads = [shape for name, shape in shapes.items() if name.endswith(_HEADS)]
    architectures = getattr(config, "architectures", None) or ["ForSequenceClassification"]
    has_head = bool(heads) and any("ForSequenceClassification" in a for a in architectures)
    labels = _label_names(folder, config) if has_head else ()
    if has_head:
        _check_head(folder, labels, heads[0])
    return FolderInfo(
        label_names=labels,
        num_params=_num_params(folder, config, shapes),
        vocab_size=text.vocab_size,
        max_positions=usable_positions(text),
        hidden=text.hidden_size,
        model_type=config.model_type,
        num_layers=text.num_hidden_layers,
        has_classifier_head=has_head,
        reading=reading_of(config, folder),
    )


def _text_of_classifier(folder: Path, config: PretrainedConfig) -> Any:
    """The configuration of the part that reads text; ModelError for a family that cannot be used
    as a classifier, with or without a head of its own."""
    kind, text = config.model_type, text_config(config)
    way_out = "give the folder of another model, such as BERT, RoBERTa or Qwen"
    if kind not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        raise ModelError(
            f"{folder} is a {kind} model, which transformers has no classifier of texts for: "
            f"{way_out}"
        )
    if kind in _READS_PADDING:
        raise ModelError(
            f"{folder} is a {kind} model, whose logits of a text depend on how far its batch is "
            f"padded: {way_out}"
        )
    for key in ("vocab_size", "hidden_size", "num_hidden_layers"):
        if not isinstance(getattr(text, key, None), int):
            raise ModelError(f"{folder}/config.json of a {kind} model has no {key}: {way_out}")
    return text


def _num_params(
    folder: Path, config: PretrainedConfig, shapes: Mapping[str, tuple[int, ...]]
) -> int:
    """Floating-point numbers of the model, which a quantised folder stores otherwise."""
    if quantisation(config) is None:
        return sum(prod(shape) for shape in shapes.values())
    try:
        with quiet(), torch.device("meta"):
            return AutoModelForSequenceClassification.from_config(config).num_parameters()
    except Exception as error:  # whatever a family makes of impossible dimensions
        raise ModelError(f"{folder}/config.json cannot be used: {brief(error)}") from None


def _feature_info(
    folder: Path, config: FeatureConfig, shapes: dict[str, tuple[int, ...]]
) -> FolderInfo:
    """Of a FeatureClassifier: no tokenizer, and its standardisation is no parameter."""
    labels = _label_names(folder, config)
    head = shapes.get("classifier.weight")
    if head is None:
        raise ModelError(f"{folder} lacks classifier.weight: copy the whole model folder")
    _check_head(folder, labels, head)
    buffers = buffer_shapes(config.num_features)
    return FolderInfo(
        label_names=labels,
        num_params=sum(prod(shape) for name, shape in shapes.items() if name not in buffers),
        vocab_size=0,
        max_positions=sys.maxsize,
        hidden=config.hidden_size,
        model_type=config.model_type,
        num_layers=config.num_hidden_layers,
        has_classifier_head=True,
        num_features=config.num_features,
    )


def _check_head(folder: Path, labels: tuple[str, ...], head: tuple[int, ...]) -> None:
    if head[0] != len(labels):
        raise ModelError(
            f"{folder}: id2label names {len(labels)} labels, but the head has {head[0]} "
            "outputs: correct id2label in config.json"
        )


def load_classifier(
    folder: str | Path,
    allow_pickle: bool = False,
    dtype: str = "float32",
    dropout: float | None = None,
) -> PreTrainedModel:
    """The folder's classifier on the CPU, in eval mode.

    ``dtype``: float32 or bfloat16. ``dropout``: replaces the folder's.
    """
    info = check_folder(folder, allow_pickle)
    if not info.has_classifier_head:
        raise ModelError(
            f"{folder} has no sequence-classification head: fine-tune it first (experts.base, "
            "student.init_from), or give a folder saved from a …ForSequenceClassification model"
        )
    model, missing = from_folder(
        AutoModelForSequenceClassification, folder, allow_pickle, dtype, dropout
    )
    refuse_missing(folder, missing)
    if not info.num_features:
        pool_by_mask(model, pad_id(load_tokenizer(folder)))
    return model


def was_read_at_padding(folder: str | Path) -> bool:
    """Whether a classifier is a decoder whose tokenizer pads with another token than the one that
    config.json names: before pooling.py its rows in a batch were read at their padding."""
    config = read_config(folder)
    kind, own = config.model_type, getattr(text_config(config), "pad_token_id", None)
    is_decoder = (
        kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    )
    return is_decoder and own is not None and own != pad_id(load_tokenizer(folder))


def load_base_for_classification(
    folder: str | Path,
    label_names: Sequence[str],
    seed: int,
    layers: int | None = None,
    dropout: float | None = None,
    allow_pickle: bool = False,
) -> PreTrainedModel:
    """A folder's encoder under a *fresh* classification head, float32, in eval mode.

    A head that the folder has is not used. ``layers``: keep only the encoder's first ones.
    ``dropout``: replaces the folder's. The head depends on ``seed`` alone; no global random state
    is read or changed.
    """
    check_folder(folder, allow_pickle)
    with seeded(seed):
        encoder, missing = from_folder(AutoModel, folder, allow_pickle, "float32", dropout)
        # A pooler is a part of the head: many encoders (masked language models) come without.
        refuse_missing(folder, [key for key in missing if not key.startswith("pooler.")])
        if layers is not None:
            keep_first_layers(encoder, layers)
        config = encoder.config
        set_labels(config, label_names)
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    result = model.base_model.load_state_dict(encoder.state_dict(), strict=False)
    refuse_missing(folder, [key for key in result.missing_keys if not key.startswith("pooler.")])
    pool_by_mask(model.eval(), pad_id(load_tokenizer(folder)))
    return model


def read_config(folder: str | Path) -> PretrainedConfig:
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelError(not_found("model folder", folder))
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} has no config.json: give a folder written by model.save_pretrained"
        )
    try:
        with quiet():
            return AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # transformers validates with exceptions of several libraries
        raise ModelError(f"{folder}/config.json cannot be used: {brief(error)}") from None


def usable_positions(config: PretrainedConfig) -> int:
    """Tokens of the longest text: rows of the position table, less those RoBERTa never uses."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or positions < 1:
        return sys.maxsize
    if config.model_type.endswith("roberta") or config.model_type in _OFFSET_POSITIONS:
        return positions - ((config.pad_token_id or 0) + 1)
    return positions


def set_labels(config: PretrainedConfig, label_names: Sequence[str]) -> None:
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: index for index, name in enumerate(label_names)}


def _label_names(folder: Path, config: PretrainedConfig) -> tuple[str, ...]:
    # Values are what config.json holds: transformers takes integers too.
    id2label = {int(key): as_label(name) for key, name in (config.id2label or {}).items()}
    if sorted(id2label) != list(range(len(id2label))):
        raise ModelError(
            f"{folder}: id2label must name the classes 0, 1, 2, …, got {sorted(id2label)}: "
            "correct it in config.json"
        )
    return tuple(id2label[index] for index in range(len(id2label)))


def from_folder(
    auto: Any, folder: str | Path, allow_pickle: bool, dtype: str, dropout: float | None
) -> tuple[PreTrainedModel, list[str]]:
    """The model in eval mode, and the names of weights that the folder lacks."""
    config = read_config(folder)
    for key in _DROPOUTS if dropout is not None else ():
        if hasattr(text_config(config), key):
            setattr(text_config(config), key, dropout)
    is_quantised = quantisation(config) is not None
    try:
        with quiet():
            model, report = auto.from_pretrained(
                folder,
                config=config,
                dtype=getattr(torch, dtype),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=None if allow_pickle else True,
                output_loading_info=True,
                **loading_options(config),
            )
            if is_quantised:
                model = as_plain(model, getattr(torch, dtype))
    except (OSError, RuntimeError, ValueError, ImportError, SafetensorError) as error:
        raise ModelError(f"{folder}: the weights do not fit config.json: {brief(error)}") from None
    return model.eval(), sorted(report["missing_keys"])


def refuse_missing(folder: str | Path, missing: list[str]) -> None:
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} weights of the model that config.json describes "
            f"(first: {missing[0]}): copy the folder again, or correct config.json"
        )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's CPU generator at ``seed`` inside, and as it was before afterwards.

    Only that generator: ``torch.manual_seed`` would reseed the GPUs' permanently.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
