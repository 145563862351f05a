"""A GGUF file as a Hugging Face folder: safetensors, configuration, tokenizer.

    python -m distill.models.gguf model.Q4_1.gguf --out models/name

Quantised numbers are written as the float32 that they stand for. Needs the packages gguf and
accelerate.
"""

from __future__ import annotations

import argparse
import copy
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from distill.errors import DistillError, ModelError
from distill.models.language import LanguageInfo, check_language_folder
from distill.models.load import seeded
from distill.models.tokenizer import quiet
from distill.models.weights import brief


def convert(path: str | Path, out: str | Path) -> LanguageInfo:
    """Write the folder ``out``. Raises ModelError for a file that is cut short or none, and for
    an architecture that transformers cannot read."""
    path, out = Path(path), Path(out)
    check_gguf(path)
    try:
        with quiet():
            found: Any = AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=path.name, dtype=torch.float32, local_files_only=True
            )
            tokenizer = AutoTokenizer.from_pretrained(
                path.parent, gguf_file=path.name, local_files_only=True
            )
    except Exception as error:  # whatever reading an unknown architecture ends in
        raise ModelError(f"{path}: transformers cannot read it: {brief(error)}") from None
    with quiet():
        plainly(found).save_pretrained(out, max_shard_size="100GB")
    tokenizer.save_pretrained(out)
    return check_language_folder(out)


def check_gguf(path: Path) -> None:
    """Raise ModelError unless every tensor that the header names is in the file."""
    if missing := [name for name in ("gguf", "accelerate") if find_spec(name) is None]:
        raise ModelError(
            f"reading {path} needs the packages gguf and accelerate: "
            f"pip install {' '.join(missing)}"
        )
    from gguf import GGUFReader

    try:
        tensors = GGUFReader(path).tensors
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    except Exception as error:  # numpy's and gguf's, of a header that ends or points past the end
        raise ModelError(
            f"{path} is truncated or not a GGUF file ({brief(error)}): copy it again"
        ) from None
    size = path.stat().st_size
    short = [t.name for t in tensors if t.data_offset + t.n_bytes > size]
    if short or not tensors:
        raise ModelError(
            f"{path} is truncated: it ends at byte {size:,}, within or before "
            f"{short[0] if short else 'its tensors'}: copy it again"
        )


def plainly(model: PreTrainedModel) -> PreTrainedModel:
    """The same weights without the memory of a quantised file, which could not be saved."""
    values = model.config.to_dict()
    for key in ("quantization_config", "_name_or_path"):
        values.pop(key, None)
    with seeded(0):  # whatever it draws is overwritten
        fresh = AutoModelForCausalLM.from_config(type(model.config).from_dict(values))
    fresh.load_state_dict(model.state_dict())
    fresh.generation_config = copy.deepcopy(model.generation_config)
    return fresh.eval()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m distill.models.gguf")
    parser.add_argument("path", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parsed = parser.parse_args(arguments)
    try:
        info = convert(parsed.path, parsed.out)
    except DistillError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{parsed.out}: {info.model_type}, {info.num_params:,} parameters, float32")
    return 0


if __name__ == "__main__":
    sys.exit(main())
