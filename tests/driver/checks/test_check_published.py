"""``distill check`` of models as published: multimodal, quantised, without a padding token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForMultimodalLM

from distill.config import Experiment
from distill.driver.checks.check import check
from distill.errors import ConfigError, ModelError
from tests.toys_language import NUM_TOKENS, language_experiment, write_llama, write_tokenizer

TEXT: dict[str, Any] = {
    "vocab_size": NUM_TOKENS,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": 0,
}
LINEAR: dict[str, Any] = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
VISION = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16}
VISION |= {"intermediate_size": 8, "patch_size": 8}
QWEN_VISION = {"depth": 1, "hidden_size": 8, "num_heads": 2, "intermediate_size": 8}
QWEN_VISION |= {"out_hidden_size": 32, "patch_size": 8}


def write_multimodal(folder: Path, family: str) -> Path:
    qwen = family == "qwen3_5"
    config = AutoConfig.for_model(
        family,
        text_config={**TEXT, **(LINEAR if qwen else {})},
        vision_config=QWEN_VISION if qwen else VISION,
        image_token_id=NUM_TOKENS - 1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        AutoModelForMultimodalLM.from_config(config).save_pretrained(folder)
    return write_tokenizer(folder)


def experiment(root: Path, **changes: Any) -> Experiment:
    return Experiment.model_validate(language_experiment(root, **changes))


def test_a_gemma_3_teacher_is_served_by_its_text_part(tmp_path: Path) -> None:
    write_llama(tmp_path / "meals", seed=2)
    write_multimodal(tmp_path / "films", "gemma3")
    check(experiment(tmp_path))


def test_a_hybrid_teacher_is_refused_with_packing_alone(tmp_path: Path) -> None:
    for name in ("films", "meals"):  # transformers gives tokenizers of Qwen3.5 rules of their own
        write_multimodal(tmp_path / name, "qwen3_5")
    with pytest.raises(ConfigError, match=r"teachers.films: a qwen3_5_text model .*packing: false"):
        check(experiment(tmp_path))
    data = language_experiment(tmp_path)["data"]
    check(experiment(tmp_path, data={**data, "packing": False}))


def test_no_folder_needs_a_padding_token(tmp_path: Path) -> None:
    for seed, name in enumerate(("films", "meals")):
        folder = write_llama(tmp_path / name, seed=seed)
        text = json.loads((folder / "tokenizer_config.json").read_text())
        del text["pad_token"]
        (folder / "tokenizer_config.json").write_text(json.dumps(text))
    check(experiment(tmp_path))


def test_a_quantised_teacher_is_refused_by_its_method(tmp_path: Path) -> None:
    write_llama(tmp_path / "meals", seed=2)
    folder = write_llama(tmp_path / "films", seed=1)
    text = json.loads((folder / "config.json").read_text())
    text["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(text))
    with pytest.raises(ModelError, match=r"films is quantised .*gptq.*before it was quantised"):
        check(experiment(tmp_path))
