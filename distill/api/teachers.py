"""Teachers given as objects: kept in the data cache under their fingerprint, as model folders and
pickles, from which they are served.

Who passes an object trusts it. A path is no object: a pickle in one needs ``allow_pickle``.
"""

from __future__ import annotations

import copy
import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.api.tables import placed
from distill.errors import ModelError
from distill.names import folder_name

NUM_CPUS = 0.1
"""Set aside for an object with predict_proba: ``teachers.<name>.num_cpus`` in overrides is more."""
KINDS = (
    "(model, tokenizer) of transformers, a torch module of features with classes, an object with "
    "predict_proba and classes_, a path, or a dict of the keys of a teacher with one of them as "
    "'model' or 'path'"
)


def section_of(name: str, teacher: Any, folder: Path) -> dict[str, Any]:
    """An entry of ``teachers`` for one given from Python. Raises ModelError for other objects."""
    if isinstance(teacher, str | Path):
        return {"name": name, "path": str(teacher)}
    if not isinstance(teacher, Mapping):
        return {"name": name, **_saved(name, teacher, folder)}
    keys = dict(teacher)
    if ("model" in keys) == ("path" in keys):
        raise ModelError(f"the teacher {name!r} is a dict: give it one of 'model' and 'path'")
    model = keys.pop("model", None)
    saved = {} if model is None else _saved(name, model, folder)
    keys = {k: str(v) if isinstance(v, Path) else v for k, v in keys.items()}
    return {"name": name, **saved, **keys}


def _saved(name: str, model: Any, folder: Path) -> dict[str, Any]:
    from torch import nn
    from transformers import PreTrainedModel

    tokenizer: Any = None
    if isinstance(model, tuple) and len(model) == 2:
        model, tokenizer = model
    elif isinstance(inner := getattr(model, "model", None), PreTrainedModel):  # a pipeline
        model, tokenizer = inner, getattr(model, "tokenizer", None)
    if isinstance(model, PreTrainedModel):
        return {"path": str(_model_folder(name, model, tokenizer, folder))}
    if isinstance(model, nn.Module) and not hasattr(model, "predict_proba"):
        model = _of_module(name, model)
    path = _pickle(name, model, folder)
    return {"path": str(path), "allow_pickle": True, "num_cpus": NUM_CPUS}


def _model_folder(name: str, model: Any, tokenizer: Any, folder: Path) -> Path:
    from distill.models.features import FeatureClassifier
    from distill.models.tokenizer import quiet

    if tokenizer is None and not isinstance(model, FeatureClassifier):
        raise ModelError(
            f"the teacher {name!r} is a {type(model).__name__} without its tokenizer: give both, "
            f"as teachers={{{name!r}: (model, tokenizer)}}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder, prefix=".tmp-"))
    try:
        with quiet():
            model.save_pretrained(partial, max_shard_size="100GB")
            if tokenizer is not None:
                tokenizer.save_pretrained(partial)
        return placed(partial, folder, f"{folder_name(name)}-")
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _of_module(name: str, module: Any) -> Any:
    from distill.teachers.modules import ModuleClassifier

    classes = getattr(module, "classes_", getattr(module, "classes", None))
    if classes is None:
        raise ModelError(
            f"the teacher {name!r} is a {type(module).__name__}, a torch module without classes: "
            "set its attribute classes to the label names in the order of its logits"
        )
    # A copy: evaluation mode and the CPU, where it is unpickled, are not the caller's module's.
    return ModuleClassifier(copy.deepcopy(module).cpu(), classes)


def _pickle(name: str, model: Any, folder: Path) -> Path:
    from ray.cloudpickle import cloudpickle  # also takes classes of notebooks and of __main__

    from distill.teachers.probability import label_names
    from distill.teachers.segments import write_atomically

    try:
        label_names(model, f"the teacher {name!r}")  # refused before anything is written
    except ModelError as error:
        if hasattr(model, "predict_proba"):
            raise
        raise ModelError(f"{error}; a teacher is {KINDS}") from None
    try:
        content = cloudpickle.dumps(model)
    except Exception as error:  # pickling fails in every way there is
        reason = f"{type(error).__name__}: {error}"
        raise ModelError(
            f"the teacher {name!r} cannot be pickled ({reason}), but teachers run in their own "
            "processes: give an object that can be pickled"
        ) from None
    digest = hashlib.sha256(content).hexdigest()[:32]
    path = folder / f"{folder_name(name)}-{digest}.pkl"
    return path if path.exists() else write_atomically(path, content)
