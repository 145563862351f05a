"""The weight files of a Hugging Face folder: which there are, what they hold, their fingerprint."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from distill.errors import ModelError


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


def stored_shapes(folder: Path, allow_pickle: bool) -> dict[str, tuple[int, ...]]:
    """Shapes of the floating-point tensors in the weight files, from their headers."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        if not path.is_file():
            raise ModelError(f"{folder} has no {path.name}, which its index names: copy it again")
        if path.suffix != ".safetensors":
            if not allow_pickle:
                raise ModelError(
                    f"{folder} has weights only as the pickle {path.name}, and pickles run code: "
                    "convert it with model.save_pretrained, or set allow_pickle: true"
                )
            shapes |= _pickled_shapes(path)
            continue
        shapes |= safetensors_shapes(path)
    return shapes


def safetensors_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the floating-point tensors in one file, from its header; ModelError where it is cut
    short."""
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                tensor = file.get_slice(name)
                if tensor.get_dtype() in ("F64", "F32", "F16", "BF16"):
                    shapes[name] = tuple(tensor.get_shape())
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is cut short or not a safetensors file ({brief(error)}): copy it again"
        ) from None
    return shapes


def _pickled_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        # meta: no tensor is read; weights_only: nothing but tensors is unpickled.
        state = torch.load(path, map_location="meta", weights_only=True)
        return {k: tuple(v.shape) for k, v in state.items() if v.is_floating_point()}
    except Exception as error:  # unpickling fails in every way there is
        raise ModelError(f"{path} cannot be read as weights: {brief(error)}") from None


def brief(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
