"""The weight files of a Hugging Face folder: which there are, what they hold, their fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from distill.errors import ModelError

_FLOAT_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}
_FLOATS = frozenset(_FLOAT_NAMES.values())


def weights_fingerprint(folder: str | Path) -> str:
    """sha256 over config.json and the weight files: the same model elsewhere has the same one."""
    folder = Path(folder)
    digest = hashlib.sha256()
    for path in [folder / "config.json", *weight_files(folder)]:
        if not path.is_file():
            raise ModelError(f"{folder} has no {path.name}: copy the whole model folder")
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers would load: safetensors before pickles, shards by their index."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            try:
                shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            except (ValueError, KeyError, AttributeError, TypeError):
                raise ModelError(
                    f"{index} is not an index of weight files: copy it again"
                ) from None
            return [folder / shard for shard in sorted(shards)]
    raise ModelError(f"{folder} has no model.safetensors: copy the whole model folder")


class Stored(NamedTuple):
    """What a header declares of a tensor."""

    dtype: str  # as safetensors names it: F32, BF16, F8_E4M3, U8
    shape: tuple[int, ...]


def stored_tensors(folder: Path, allow_pickle: bool) -> dict[str, Stored]:
    """All tensors in the weight files, from their headers."""
    found: dict[str, Stored] = {}
    for path in weight_files(folder):
        if not path.is_file():
            raise ModelError(f"{folder} has no {path.name}, which its index names: copy it again")
        if path.suffix != ".safetensors":
            if not allow_pickle:
                raise ModelError(
                    f"{folder} has weights only as the pickle {path.name}, and pickles run code: "
                    "convert it with model.save_pretrained, or set allow_pickle: true"
                )
            found |= _pickled(path)
            continue
        found |= _in_safetensors(path)
    return found


def safetensors_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the floating-point tensors in one file, from its header; ModelError where it is cut
    short."""
    return shapes_of_floats(_in_safetensors(path))


def shapes_of_floats(stored: Mapping[str, Stored]) -> dict[str, tuple[int, ...]]:
    """Shapes of the floating-point tensors of 16 bits or more; smaller ones are quantised."""
    return {name: tensor.shape for name, tensor in stored.items() if tensor.dtype in _FLOATS}


def _in_safetensors(path: Path) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                tensor = file.get_slice(name)
                found[name] = Stored(tensor.get_dtype(), tuple(tensor.get_shape()))
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is truncated or not a safetensors file ({brief(error)}): copy it again"
        ) from None
    return found


def _pickled(path: Path) -> dict[str, Stored]:
    try:
        # meta: no tensor is read; weights_only: nothing but tensors is unpickled.
        state = torch.load(path, map_location="meta", weights_only=True)
        return {k: Stored(_name(v.dtype), tuple(v.shape)) for k, v in state.items()}
    except Exception as error:  # unpickling fails in every way there is
        raise ModelError(f"{path} cannot be read as weights: {brief(error)}") from None


def _name(dtype: torch.dtype) -> str:
    """As safetensors names it; those that no plain model is stored in by torch's own name."""
    return _FLOAT_NAMES.get(dtype, str(dtype))


def brief(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
