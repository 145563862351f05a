"""Quantised folders: read as the floating-point numbers that their weights stand for.

``config.json`` names the method under ``quantization_config``. What transformers can turn back into
numbers while it loads is served, trained and exported as any other model; the rest is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.quantizers.auto import AutoHfQuantizer, AutoQuantizationConfig

from distill.errors import ModelError
from distill.models.multimodal import text_config
from distill.models.weights import Stored, brief

_READS_NUMBERS = ("fp8", "mxfp8", "mxfp4", "compressed-tensors")
"""Methods whose configuration in transformers has ``dequantize``."""
_BITSANDBYTES = "bitsandbytes"
_SCALES = ("{name}_scale_inv", "{module}.scale", "{module}.qscale_weight")
"""Where transformers looks for the scales of an FP8 weight ``{module}.weight``."""
_WAY_OUT = "give the folder of the model before it was quantised, or one that was dequantised"


def quantisation(config: PretrainedConfig) -> dict[str, Any] | None:
    """``quantization_config`` as config.json has it; None of a folder of plain numbers."""
    found = getattr(config, "quantization_config", None)
    found = found or getattr(text_config(config), "quantization_config", None)
    return dict(found) if found else None


def check_quantised(folder: Path, config: PretrainedConfig, stored: Mapping[str, Stored]) -> None:
    """Raise ModelError, with the reason and a way out, for one that cannot be read as numbers here.

    ``stored``: every tensor in the weight files, by name.
    """
    written = quantisation(config)
    if written is None:
        return
    method = _method(written)
    shown = f"{folder} is quantised (quantization_config.quant_method {method})"
    if method not in (*_READS_NUMBERS, _BITSANDBYTES):
        known = ", ".join((*_READS_NUMBERS, _BITSANDBYTES))
        raise ModelError(f"{shown}, and transformers can dequantise only {known}: {_WAY_OUT}")
    try:
        settings = AutoQuantizationConfig.from_dict(_as_numbers(written))
        quantizer: Any = AutoHfQuantizer.from_config(settings, pre_quantized=True)
        quantizer.validate_environment(device_map=None, weights_only=True)
    except Exception as error:  # whatever a missing package or an odd setting ends in
        raise ModelError(f"{shown}: {brief(error)}; or {_WAY_OUT}") from None
    if method in ("fp8", "mxfp8"):
        _check_scales(folder, stored)


def loading_options(config: PretrainedConfig) -> dict[str, Any]:
    """Of from_pretrained; the configuration is made to ask for numbers."""
    written = quantisation(config)
    if written is None:
        return {}
    config.quantization_config = _as_numbers(written)
    # Else bitsandbytes takes a GPU that is there.
    return {"device_map": {"": "cpu"}} if _method(written) == _BITSANDBYTES else {}


def as_plain(model: Any, dtype: torch.dtype) -> PreTrainedModel:
    """The model without what it remembers of its quantisation, by which it would be saved so."""
    if getattr(model, "hf_quantizer", None) is not None:
        model = model.dequantize(dtype=dtype)
    for weight in model.parameters():  # not the buffers: positions in bfloat16 are no positions
        weight.data = weight.data.to(dtype)
    part: Any
    for part in (model.config, text_config(model.config)):
        if getattr(part, "quantization_config", None) is not None:
            del part.quantization_config
    if hasattr(model, "_weight_conversions"):
        del model._weight_conversions
    return model


def _method(written: Mapping[str, Any]) -> str:
    if written.get("load_in_4bit") or written.get("load_in_8bit"):
        return _BITSANDBYTES  # as of old folders, which do not name it
    return str(written.get("quant_method"))


def _as_numbers(written: Mapping[str, Any]) -> dict[str, Any]:
    return dict(written) if _method(written) == _BITSANDBYTES else {**written, "dequantize": True}


def _check_scales(folder: Path, stored: Mapping[str, Stored]) -> None:
    """An FP8 weight without scales would be read as numbers that it does not stand for."""
    for name, (dtype, shape) in stored.items():
        if dtype not in ("F8_E4M3", "F8_E5M2"):
            continue
        module = name.rpartition(".")[0]
        places = [place.format(name=name, module=module) for place in _SCALES]
        scales = next((stored[place].shape for place in places if place in stored), None)
        if scales is None:
            raise ModelError(
                f"{folder}: the FP8 weight {name} has no scales ({places[0]}): copy the whole "
                "model folder"
            )
        if any(n % s for n, s in zip(shape[-2:], scales[-2:], strict=False) if s):
            raise ModelError(
                f"{folder}: {name} of shape {list(shape)} is not a multiple of its scales "
                f"{list(scales)}, which transformers cannot dequantise: {_WAY_OUT}"
            )
