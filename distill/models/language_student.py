"""Building a language-model student: from dimensions, from a folder, or from some of its layers."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any, Literal

from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from distill.config import Lora, Student
from distill.errors import ConfigError, ModelError
from distill.models.decoder import base_of, layers_of
from distill.models.language import check_language_folder, load_language_model
from distill.models.language_sizes import solve_language
from distill.models.load import seeded
from distill.models.tokenizer import load_tokenizer, num_ids
from distill.models.weights import brief

_LAYER_INDICES = ("mlp_only_layers",)
"""Keys of configurations that name layers by number."""
_BY_NUMBER = {
    "decoder_sparse_step": 1,
    "scale_attn_by_inverse_layer_idx": False,
}
"""Keys by which a layer's number decides what it does, and the value by which it does not."""


def build_language_student(
    student: Student,
    tokenizer_folder: str | Path,
    max_length: int,
    seed: int,
    gradient_checkpointing: bool = False,
) -> PreTrainedModel:
    """The student before training, float32 on the CPU, in eval mode; a peft model with ``lora``.

    A function of its arguments: new weights depend on ``seed`` alone, and no global random state
    is read or changed. ``max_length``: tokens of the longest sequence, a new student's positions.
    Raises ModelError or ConfigError as :func:`check_language_start`.
    """
    check_language_start(student, tokenizer_folder, max_length)
    dropout = student.dropout if "dropout" in student.model_fields_set else None
    if student.path is not None:
        model = load_language_model(student.path, dropout=dropout)
    elif student.init_from is not None:
        start = student.init_from
        whole = load_language_model(start.path, dropout=dropout)
        model = keep_layers(whole, kept_layers(start.layers, len(layers_of(whole)[1]), start.keep))
    else:
        model = _new(student, tokenizer_folder, max_length, seed, dropout)
    # Often the padding is the end of text as well, whose embedding would never be learnt.
    embeddings: Any = model.get_input_embeddings()
    embeddings.padding_idx = None
    if student.lora is not None:
        model = with_lora(model, student.lora, seed)
    if gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    return model.eval()


def check_language_start(student: Student, tokenizer_folder: str | Path, max_length: int) -> None:
    """Raise unless the student can be built for this tokenizer and sequences of this length."""
    if student.family not in (None, "transformer"):
        raise ConfigError(
            f"student.family is {student.family}, a language model is a transformer: remove it"
        )
    if student.path is not None:
        _check_fit("student.path", student.path, tokenizer_folder, max_length)
    elif student.init_from is not None:
        start = student.init_from
        num_layers = _check_fit("student.init_from.path", start.path, tokenizer_folder, max_length)
        if start.layers > num_layers:
            raise ModelError(
                f"student.init_from.layers {start.layers} is more than the {num_layers} layers of "
                f"{start.path}: use fewer"
            )
    else:
        if student.lora is not None:
            raise ConfigError(
                "student.lora trains updates of existing weights, but this student starts without "
                "any: give student.path or student.init_from, or remove student.lora"
            )
        solve_language(student, num_ids(load_tokenizer(tokenizer_folder)))


def _check_fit(key: str, folder: str, tokenizer_folder: str | Path, max_length: int) -> int:
    """Of a folder to start from; returns its layers."""
    info = check_language_folder(folder)
    tokenizer, own = load_tokenizer(tokenizer_folder), load_tokenizer(folder)
    if num_ids(tokenizer) > info.vocab_size:
        raise ModelError(
            f"{key} {folder} has embeddings for {info.vocab_size} tokens, the student's tokenizer "
            f"has {num_ids(tokenizer)}: use the tokenizer that the model was trained with"
        )
    if tokenizer.get_vocab() != own.get_vocab():
        raise ModelError(
            f"the student's tokenizer {tokenizer_folder} has different tokens from the embeddings "
            f"of {key} {folder}: use the tokenizer that the model was trained with"
        )
    if max_length > info.max_positions:
        raise ModelError(
            f"data.max_length {max_length} is more than the {info.max_positions} positions of "
            f"{key} {folder}: lower it"
        )
    return info.num_layers


def _new(
    student: Student,
    tokenizer_folder: str | Path,
    max_length: int,
    seed: int,
    dropout: float | None,
) -> LlamaForCausalLM:
    tokenizer: Any = load_tokenizer(tokenizer_folder)
    vocab_size = num_ids(tokenizer)
    size = solve_language(student, vocab_size)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        intermediate_size=size.ffn,
        max_position_embeddings=max_length,
        tie_word_embeddings=True,
        attention_dropout=dropout or 0.0,  # the only one of the family
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with seeded(seed):
        model = LlamaForCausalLM(config)
    assert model.generation_config is not None
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def kept_layers(num: int, num_layers: int, keep: Literal["first", "even"]) -> list[int]:
    """Which ``num`` of ``num_layers`` stay: see ``student.init_from.keep``."""
    if keep == "first" or num == 1:
        return list(range(num))
    # i · (L - 1) / (n - 1), rounded half up in integers: the first and the last are exact.
    return [(2 * i * (num_layers - 1) + num - 1) // (2 * (num - 1)) for i in range(num)]


def keep_layers(model: PreTrainedModel, kept: list[int]) -> PreTrainedModel:
    """A new model with only these layers, in this order; all its weights are the given one's bits.

    Embeddings, last norm and head stay. Raises ModelError for a family whose layers do different
    things by their number and would do others in another place.
    """
    name, layers = layers_of(model)
    config = _config_of(model.config, kept, len(layers))
    with seeded(0):  # whatever it draws is overwritten
        fresh = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    base: Any = base_of(model)
    prefix = next(n for n, part in model.named_modules() if part is base) + f".{name}."
    pattern = re.compile(re.escape(prefix) + r"(\d+)(\..*)")
    places = {old: new for new, old in enumerate(kept)}
    state = {}
    for key, tensor in model.state_dict().items():
        found = pattern.fullmatch(key)
        if found is None:
            state[key] = tensor
        elif int(found[1]) in places:
            state[f"{prefix}{places[int(found[1])]}{found[2]}"] = tensor
    try:
        fresh.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(
            f"layers {kept} of a {config.model_type} model do not make a model ({brief(error)}): "
            "use student.init_from.keep: first, or another model"
        ) from None
    fresh.generation_config = copy.deepcopy(model.generation_config)
    return fresh.eval()


def _config_of(config: Any, kept: list[int], num_layers: int) -> Any:
    """The configuration of these layers alone: lists that have an entry a layer, and numbers."""
    values = config.to_dict()
    if kept != list(range(len(kept))):
        for key, harmless in _BY_NUMBER.items():
            if values.get(key, harmless) != harmless:
                raise ModelError(
                    f"layers {kept} of this {config.model_type} model cannot be moved: its {key} "
                    f"is {values[key]}: use student.init_from.keep: first"
                )
    for key, value in values.items():
        if key in _LAYER_INDICES and value:
            values[key] = [new for new, old in enumerate(kept) if old in value]
        elif isinstance(value, list) and len(value) == num_layers and not _is_other_list(key):
            values[key] = [value[old] for old in kept]
    values[config.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = len(kept)
    return type(config).from_dict(values)


def _is_other_list(key: str) -> bool:
    return key == "architectures" or key.endswith(("_token_id", "_token_ids"))


def with_lora(model: PreTrainedModel, lora: Lora, seed: int) -> Any:
    """A peft model around ``model``: low-rank updates are trained, everything else is frozen.

    It starts as ``model`` (the updates are 0). Of a mixture of experts peft counts its gates and
    experts, which are no linear layers, with ``all-linear``.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise ConfigError("lora needs the package peft: pip install peft") from None

    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type] (only multiplied)
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    _check_targets(model, lora)
    with seeded(seed):
        return get_peft_model(model, config).eval()


def _check_targets(model: PreTrainedModel, lora: Lora) -> None:
    if isinstance(lora.targets, str):
        return
    layers = [
        name
        for name, part in base_of(model).named_modules()
        if isinstance(part, nn.Linear | Conv1D)
    ]
    kinds = {name.rpartition(".")[2] for name in layers}
    unknown = [t for t in lora.targets if not any(f".{n}".endswith(f".{t}") for n in layers)]
    if unknown:
        raise ConfigError(
            f"lora.targets {unknown[0]!r} is no linear layer below the head of a "
            f"{model.config.model_type} model: use some of {', '.join(sorted(kinds))}"
        )


def merged(model: Any) -> PreTrainedModel:
    """The plain transformers model, low-rank updates added to its weights.

    Of a model without them itself, else a copy: the one in training is never changed.
    """
    if not hasattr(model, "merge_and_unload"):
        return model
    return copy.deepcopy(model).merge_and_unload().eval()
