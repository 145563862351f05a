"""Adapters that peft wrote: what a folder holds, whether it fits a base, and several on one copy.

Plain LoRA alone: low-rank updates of linear layers below the head. Such adapters leave the base as
it is, so that many can share it; whatever else peft can write would change it for the others.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from distill.errors import ModelError
from distill.models.hub import not_found
from distill.models.plain_head import described
from distill.models.tokenizer import quiet
from distill.models.weights import brief, safetensors_shapes

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"

_ORIGIN = {"auto_mapping", "inference_mode", "peft_version"}
_PLAIN = {
    *_ORIGIN,
    *("peft_type", "task_type", "base_model_name_or_path", "revision"),
    *("r", "lora_alpha", "lora_dropout", "use_rslora", "rank_pattern", "alpha_pattern"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    "fan_in_fan_out",
}
"""Keys of its configuration that may have any value; every other one must have its default."""
_STARTS = (True, False, "gaussian", "orthogonal")
"""Values of init_lora_weights that leave the base's weights as they are."""
WAY_OUT = (
    "merge it into a model folder of its own (peft's merge_and_unload), and give that as path "
    "without adapter"
)


@dataclass(frozen=True)
class AdapterInfo:
    """What a folder declares about its adapter, without its weights."""

    folder: Path
    config: Any
    """peft's LoraConfig."""
    shapes: dict[str, tuple[int, ...]]

    @property
    def num_params(self) -> int:
        return sum(prod(shape) for shape in self.shapes.values())


def read_adapter(folder: str | Path, key: str = "adapter") -> AdapterInfo:
    """Raise ModelError, naming ``key``, for a folder that could not be served with others."""
    folder = Path(folder)
    text = f"{key} {folder}"
    if not folder.is_dir():
        raise ModelError(f"{key}: {not_found('adapter folder', folder)}")
    if not (folder / CONFIG).is_file():
        is_model = (folder / "config.json").is_file()
        way_out = "for a whole model, set only path" if is_model else "check the path"
        raise ModelError(
            f"{text} is not an adapter, it has no {CONFIG}, which peft's save_pretrained writes: "
            f"{way_out}"
        )
    if not (folder / WEIGHTS).is_file():
        if (folder / PICKLE).is_file():
            raise ModelError(
                f"{text} has weights only as the pickle {PICKLE}, and pickles run code: save it "
                "again with save_pretrained, which writes safetensors"
            )
        raise ModelError(f"{text} has no {WEIGHTS}: copy the whole folder")
    config = _config(folder, text)
    try:
        shapes = safetensors_shapes(folder / WEIGHTS)
    except ModelError as error:
        raise ModelError(f"{key}: {error}") from None
    return AdapterInfo(folder, config, shapes)


def _config(folder: Path, where: str) -> Any:
    from peft import LoraConfig

    try:
        raw = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind = raw["peft_type"]
    except (ValueError, KeyError, TypeError):
        raise ModelError(f"{where}: {CONFIG} is not an adapter's: copy the folder again") from None
    if kind != "LORA":
        raise ModelError(f"{where} is of peft_type {kind}, only LORA is served here: {WAY_OUT}")
    defaults = {
        field.name: field.default_factory()
        if field.default_factory is not dataclasses.MISSING
        else field.default
        for field in dataclasses.fields(LoraConfig)
    }
    for name, value in raw.items():
        is_start = name == "init_lora_weights" and value in _STARTS
        if name in _PLAIN or is_start or not value or value == defaults.get(name):
            continue
        raise ModelError(
            f"{where}: {name} is {value!r} in its {CONFIG}, and only low-rank updates of linear "
            f"layers can share a base: {WAY_OUT}"
        )
    try:
        known: dict[str, Any] = {n: raw[n] for n in _PLAIN & raw.keys() - _ORIGIN}
        return LoraConfig(**known, inference_mode=True)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{where}: {CONFIG} cannot be used: {brief(error)}") from None


def check_adapter(info: AdapterInfo, base: str | Path, key: str = "adapter") -> None:
    """Raise ModelError, naming ``key``, unless the adapter fits the model in the folder ``base``.

    By their headers and configurations: no weight is read.
    """
    model, text = described(base), f"{key} {info.folder}"
    outside = {
        name
        for name, part in model.named_modules()
        if part in (model.get_input_embeddings(), model.get_output_embeddings())
    }
    trained_on = info.config.base_model_name_or_path
    way_out = f"give the base that it was trained on as path (it names {trained_on!r})"
    try:
        with torch.device("meta"):
            wrapped = _wrapped(model, info)
    except (ValueError, TypeError) as error:  # no layer of that name, or of another kind
        raise ModelError(f"{text} does not fit {base} ({brief(error)}): {way_out}") from None
    name = next((n for n, part in model.named_modules() if n in outside and _is_tuned(part)), None)
    if name is not None:
        raise ModelError(
            f"{text} changes {name}, and adapters share the base's embeddings and head: train it "
            f"without, or {WAY_OUT}"
        )
    fitting = {
        name.replace(f".{_name(0)}.", "."): tuple(tensor.shape)
        for name, tensor in wrapped.named_parameters()
        if ".lora_" in name
    }
    for name in sorted(fitting.keys() | info.shapes.keys()):
        here, there = fitting.get(name), info.shapes.get(name)
        if here == there:
            continue
        shown = name.removeprefix("base_model.model.")
        if here is None:
            fault = f"it has {shown}, which the base does not have"
        elif there is None:
            fault = f"it lacks {shown}, which its {CONFIG} lists"
        else:
            fault = f"its {shown} is {list(there)}, for this base it must be {list(here)}"
        raise ModelError(f"{text} does not fit {base}: {fault}: {way_out}")


def _is_tuned(part: nn.Module) -> bool:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return isinstance(part, BaseTunerLayer)


def _wrapped(model: PreTrainedModel, info: AdapterInfo) -> Any:
    """A peft model of ``model``, which gets the adapter's layers in place, without weights yet."""
    from peft import PeftModel

    return PeftModel(model, info.config, _name(0))


def adapter_fingerprint(folder: str | Path) -> str:
    """sha256 of all that decides what the adapter does: not of where its base lay."""
    folder = Path(folder)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config.pop("base_model_name_or_path", None)
    # peft keeps names of layers as sets: their order is another whenever it saves.
    text = {key: sorted(v) if isinstance(v, list) else v for key, v in config.items()}
    digest = hashlib.sha256(json.dumps(text, sort_keys=True).encode())
    with (folder / WEIGHTS).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _name(number: int) -> str:
    """An adapter's among those of a base; a teacher's may hold dots, which peft's may not."""
    return f"adapter{number}"


class Adapters:
    """Several on one copy of a base, which changes in place. The first is active."""

    def __init__(self, base: PreTrainedModel, folders: Sequence[str | Path]) -> None:
        """Raises ModelError for a folder that cannot be read, or does not fit."""
        infos = [read_adapter(folder) for folder in folders]
        self._wrapped: Any = None
        with quiet():
            for number, info in enumerate(infos):
                self._load(base, number, info)
        self.model: PreTrainedModel = self._wrapped.get_base_model().eval()
        """The transformers model, with the updates of the active adapter."""
        self._active = -1
        self.activate(0)

    def _load(self, base: PreTrainedModel, number: int, info: AdapterInfo) -> None:
        text = f"adapter {info.folder} does not fit its base"
        try:
            if number == 0:
                self._wrapped = _wrapped(base, info)
            else:
                self._wrapped.add_adapter(_name(number), info.config)
            # On the CPU: to a device they go with the model.
            found = self._wrapped.load_adapter(str(info.folder), _name(number), torch_device="cpu")
        except (ValueError, TypeError, RuntimeError, OSError) as error:
            raise ModelError(f"{text}: {brief(error)}") from None
        for key in (*found.missing_keys, *found.unexpected_keys):
            raise ModelError(f"{text}: {key} is in only one of them")

    def activate(self, number: int) -> None:
        """From the next forward on, the model is the base with this adapter."""
        if number != self._active:
            self._wrapped.set_adapter(_name(number), inference_mode=True)
            self._active = number
