"""Quantised folders are read as the numbers that their weights stand for, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_multimodal import save_multimodal
from test_pooling import save_classifier
from tiny_models import NUM_LANGUAGE_TOKENS, save_decoder, save_language_tokenizer
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from distill.errors import ModelError
from distill.export.folder import ModelCard, export
from distill.models.language import check_language_folder, load_language_model
from distill.models.load import check_folder, load_classifier
from distill.models.weights import stored_tensors

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
GPT_OSS = {
    "vocab_size": NUM_LANGUAGE_TOKENS,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "num_local_experts": 3,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 32,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
BLOCK = 8
FP8 = {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK], "activation_scheme": "dynamic"}


def to_fp8(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The stored numbers, a scale a block, and what both stand for."""
    rows, columns = weight.shape
    blocks = weight.view(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
    scales = blocks.abs().amax((1, 3)) / 448
    stored = (blocks / scales[:, None, :, None]).to(torch.float8_e4m3fn)
    numbers = stored.float() * scales[:, None, :, None]
    return stored.view(rows, columns), scales, numbers.view(rows, columns)


def quantise(folder: Path, changes: Callable[[dict[str, Any]], Any] = lambda config: None) -> None:
    """Every linear layer but the heads; ``folder``/plain then holds the numbers meant."""
    weights = load_file(folder / "model.safetensors")
    stored, numbers = {}, {}
    for name, weight in weights.items():
        is_layer = weight.dim() == 2 and ("_proj." in name or ".c_" in name)
        if not is_layer or "vision" in name or any(n % BLOCK for n in weight.shape):
            stored[name] = numbers[name] = weight
            continue
        stored[name], stored[f"{name}_scale_inv"], numbers[name] = to_fp8(weight)
    assert len(stored) > len(weights)
    config = json.loads((folder / "config.json").read_text())
    plain = folder / "plain"
    plain.mkdir()
    for file in folder.iterdir():
        if file.is_file():
            (plain / file.name).write_bytes(file.read_bytes())
    save_file(numbers, plain / "model.safetensors", metadata={"format": "pt"})
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    config["quantization_config"] = dict(FP8)
    changes(config)
    (folder / "config.json").write_text(json.dumps(config))


def assert_same(model: Any, other: Any) -> None:
    """To the bit: float32 holds every product of an FP8 number and its scale as it was rounded."""
    ours, theirs = model.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.parametrize("family", ["llama", "qwen3_moe"])
def test_an_fp8_language_model_is_the_numbers_it_stands_for(family: str, tmp_path: Path) -> None:
    save_decoder(tmp_path, family)
    quantise(tmp_path)
    info, plain = check_language_folder(tmp_path), check_language_folder(tmp_path / "plain")
    assert info == plain
    model = load_language_model(tmp_path)
    assert_same(model, load_language_model(tmp_path / "plain"))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    half = load_language_model(tmp_path, "bfloat16")
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    # Frequencies of rotary positions stay float32: in bfloat16 the far ones would be others.
    buffers = dict(load_language_model(tmp_path / "plain", "bfloat16").named_buffers())
    for name, values in half.named_buffers():
        assert values.dtype == buffers[name].dtype and torch.equal(values, buffers[name])


def test_the_text_part_of_an_fp8_multimodal_model(tmp_path: Path) -> None:
    save_multimodal(tmp_path, "qwen3_5")
    quantise(tmp_path)
    assert check_language_folder(tmp_path) == check_language_folder(tmp_path / "plain")
    assert_same(load_language_model(tmp_path), load_language_model(tmp_path / "plain"))


def test_a_student_that_starts_from_one_is_exported_as_plain_numbers(tmp_path: Path) -> None:
    save_decoder(tmp_path, "llama")
    quantise(tmp_path)
    export(load_language_model(tmp_path), tmp_path, tmp_path / "out", ModelCard("s"))
    assert "quantization_config" not in json.loads((tmp_path / "out/config.json").read_text())
    assert {t.dtype for t in stored_tensors(tmp_path / "out", False).values()} == {"F32"}
    assert_same(load_language_model(tmp_path / "out"), load_language_model(tmp_path / "plain"))


def test_an_fp8_classifier(tmp_path: Path) -> None:
    save_classifier(tmp_path, "qwen2")
    quantise(tmp_path)
    assert check_folder(tmp_path) == check_folder(tmp_path / "plain")
    assert_same(load_classifier(tmp_path), load_classifier(tmp_path / "plain"))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ({"quant_method": "gptq", "bits": 4}, "quant_method gptq.*can dequantise only"),
        ({"quant_method": "awq", "bits": 4}, "quant_method awq.*can dequantise only"),
        ({"quant_method": "new"}, "quant_method new.*can dequantise only"),
        ({"bits": 4}, "quant_method None.*can dequantise only"),
        ({**FP8, "weight_block_size": [8]}, "fp8.*weight_block_size must be a tuple of two"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_method(
    text: dict[str, Any], part: str, tmp_path: Path
) -> None:
    save_decoder(tmp_path / "language", "llama")
    save_classifier(tmp_path / "classifier", "qwen2")
    for name, check in (("language", check_language_folder), ("classifier", check_folder)):
        folder = tmp_path / name
        quantise(folder, lambda config: config.update(quantization_config=text))
        with pytest.raises(ModelError, match=f"is quantised .*{part}.*before it was quantised"):
            check(folder)


@pytest.mark.parametrize(
    ("text", "package"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"load_in_8bit": True}, "bitsandbytes"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "compressed-tensors"),
    ],
)
def test_a_missing_package_is_named(text: dict[str, Any], package: str, tmp_path: Path) -> None:
    try:
        __import__(package.replace("-", "_"))
    except ImportError:
        pass
    else:
        pytest.skip(f"{package} is installed")
    save_decoder(tmp_path, "llama")
    quantise(tmp_path, lambda config: config.update(quantization_config=text))
    with pytest.raises(
        ModelError, match=rf"is quantised \(.*{package}\): .*pip install.*{package}"
    ):
        check_language_folder(tmp_path)


def test_an_fp8_weight_without_scales_is_refused(tmp_path: Path) -> None:
    """transformers would take its bytes for numbers."""
    save_decoder(tmp_path, "llama")
    quantise(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in weights if name.endswith("_scale_inv"))
    scales = weights.pop(lost)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"the FP8 weight .* has no scales \({lost}\)"):
        check_language_folder(tmp_path)
    weights[lost] = torch.cat([scales, scales[:1]])
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"is not a multiple of its scales \[3, 3\]"):
        check_language_folder(tmp_path)


def test_an_mxfp4_language_model(tmp_path: Path) -> None:
    """gpt-oss: two numbers of E2M1 a byte, the first in the low bits, and a power of 2 for 32."""
    config = AutoConfig.for_model(
        "gpt_oss", **GPT_OSS, layer_types=["sliding_attention", "full_attention"]
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    save_language_tokenizer(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    numbers, generator = dict(weights), torch.Generator().manual_seed(0)
    for name in [n for n in weights if n.endswith(("gate_up_proj", "down_proj"))]:
        experts, columns, rows = weights.pop(name).shape
        shape = (experts, rows, columns // 32)
        packed = torch.randint(256, (*shape, 16), generator=generator, dtype=torch.uint8)
        scales = torch.randint(120, 130, shape, generator=generator, dtype=torch.uint8)
        weights[f"{name}_blocks"], weights[f"{name}_scales"] = packed, scales
        pairs = torch.stack([packed & 15, packed >> 4], -1).flatten(-2).long()
        values = torch.tensor([*E2M1, *(-number for number in E2M1)])[pairs]
        values = values * torch.exp2(scales.float() - 127)[..., None]
        numbers[name] = values.flatten(-2).transpose(1, 2).contiguous()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    text = json.loads((tmp_path / "config.json").read_text())
    text["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (tmp_path / "config.json").write_text(json.dumps(text))
    info = check_language_folder(tmp_path)
    model = load_language_model(tmp_path)
    state = model.state_dict()
    assert [name for name in state if not torch.equal(state[name], numbers[name])] == []
    assert info.num_params == model.num_parameters() == sum(n.numel() for n in numbers.values())
