"""What the models given to ``distill init`` are, without loading their weights."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from distill.errors import ConfigError, ModelError
from distill.models.hub import not_found
from distill.teachers.probability import ENDINGS

if TYPE_CHECKING:
    from distill.models.language import LanguageInfo

Kind = Literal["classifier", "language_model", "encoder", "adapter", "pickle"]
TASK_OF: dict[Kind, str] = {
    "classifier": "classification",
    "encoder": "classification",
    "pickle": "classification",
    "language_model": "language_model",
    "adapter": "language_model",
}
VAGUE = ("model", "models", "student", "best", "final", "last", "output", "adapter", "checkpoint")
"""Names of folders that say nothing of their model: the folder above names it."""

SMALLER = 4
"""The wire ``hidden`` is chosen where a hidden state is so many times smaller than the logits."""


@dataclass(frozen=True)
class Model:
    path: str
    kind: Kind
    name: str
    base: str = ""
    """Of an adapter: the folder of the model that it updates."""
    label_names: tuple[str, ...] = ()
    """Of a classifier, in class order."""
    num_params: int = 0
    num_layers: int = 0
    max_positions: int | None = None
    """Tokens of the longest text; None where that is not known."""
    num_features: int = 0
    """Of a classifier of numbers."""
    has_chat_template: bool = False
    has_small_hidden: bool = False
    """Of a language model: whether the wire ``hidden`` serves it, and is much smaller."""

    @property
    def folder(self) -> str | None:
        """Where config.json and the tokenizer are; None of a pickle."""
        return None if self.kind == "pickle" else self.base or self.path


def read_models(paths: Sequence[str]) -> list[Model]:
    """Raises ModelError for a path that is no model, ConfigError for models of different tasks."""
    names = _names(paths)
    models = [_read(path, name) for path, name in zip(paths, names, strict=True)]
    tasks = {TASK_OF[model.kind]: model.path for model in models}
    if len(tasks) > 1:
        one, other = tasks.items()
        raise ConfigError(
            f"{one[1]} is for task {one[0]}, {other[1]} for {other[0]}: give models for one task"
        )
    encoders = [model.path for model in models if model.kind == "encoder"]
    if encoders and len(models) > 1:
        raise ConfigError(
            f"{encoders[0]} has no classification head, so it can only be the base of experts, but "
            "other models are given too: give only this one, or only classifiers"
        )
    return models


def _read(path: str, name: str) -> Model:
    if path.endswith(ENDINGS):
        if not Path(path).is_file():
            raise ModelError(f"there is no file {path}: check the path")
        return Model(path, "pickle", name)
    folder = Path(path)
    if not folder.is_dir():
        raise ModelError(not_found("model folder", path))
    if (folder / "adapter_config.json").is_file():
        return _adapter(path, name)
    from distill.models.language import check_language_folder
    from distill.models.load import check_folder, read_config

    architectures = getattr(read_config(folder), "architectures", None) or [""]
    if any("ForCausalLM" in a or "ForConditionalGeneration" in a for a in architectures):
        return _language_model(path, name, "language_model", check_language_folder(folder))
    info = check_folder(folder)
    return Model(
        path,
        "classifier" if info.has_classifier_head else "encoder",
        name,
        label_names=info.label_names,
        num_params=info.num_params,
        num_layers=info.num_layers,
        max_positions=None if info.num_features else info.max_positions,
        num_features=info.num_features,
    )


def _adapter(path: str, name: str) -> Model:
    from distill.models.adapter import read_adapter
    from distill.models.language import check_language_folder

    read_adapter(path)
    config = json.loads((Path(path) / "adapter_config.json").read_text("utf-8"))
    base = str(config.get("base_model_name_or_path") or "")
    if not Path(base).is_dir():
        raise ModelError(
            f"{path} is an adapter on {base!r}, and {not_found('model folder', base)}; then write "
            "that folder into base_model_name_or_path of its adapter_config.json"
        )
    return _language_model(path, name, "adapter", check_language_folder(base), base)


def _language_model(path: str, name: str, kind: Kind, info: LanguageInfo, base: str = "") -> Model:
    from distill.models.plain_head import described, has_plain_head

    is_small = SMALLER * info.hidden <= info.vocab_size
    return Model(
        path,
        kind,
        name,
        base,
        num_params=info.num_params,
        num_layers=info.num_layers,
        max_positions=info.max_positions,
        has_chat_template=info.has_chat_template,
        has_small_hidden=is_small and has_plain_head(described(base or path)) is True,
    )


def _names(paths: Sequence[str]) -> list[str]:
    """A name for each, from its own folder or the one above, all different."""
    names = []
    for path in paths:
        parts = [part for part in Path(path).absolute().parts if part != "/"]
        own = Path(parts[-1]).stem if path.endswith(ENDINGS) else parts[-1]
        is_vague = own.casefold().partition("-")[0] in VAGUE
        names.append(parts[-2] if is_vague and len(parts) > 1 else own)
    counts = Counter(name.casefold() for name in names)
    seen: Counter[str] = Counter()
    for i, name in enumerate(names):
        if counts[name.casefold()] > 1:
            seen[name.casefold()] += 1
            names[i] = f"{name}-{seen[name.casefold()]}"
    return names
