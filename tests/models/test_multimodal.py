"""The text part of a multimodal folder is the language model that the whole one is on text alone.

Shape suffixes: B rows, T tokens.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import NUM_LANGUAGE_TOKENS, save_language_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMultimodalLM

from distill.config import Student
from distill.errors import ModelError
from distill.export.folder import ModelCard, export
from distill.models.language import check_language_folder, load_language_model
from distill.models.language_student import build_language_student
from distill.models.plain_head import described

TEXT = {
    "vocab_size": NUM_LANGUAGE_TOKENS,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 24,
    "head_dim": 8,
    "max_position_embeddings": 32,
    "initializer_range": 0.5,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "attention_dropout": 0.0,
}
VISION = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "image_size": 16,
    "patch_size": 8,
}
GEMMA_4 = {"global_head_dim": 8, "hidden_size_per_layer_input": 4, "num_kv_shared_layers": 0}
GEMMA_4 |= {"layer_types": ["sliding_attention", "full_attention"]}
GEMMA_4 |= {"vocab_size_per_layer_input": NUM_LANGUAGE_TOKENS}
LINEAR = {f"linear_{kind}": 2 for kind in ("num_key_heads", "num_value_heads")}
LINEAR |= {"linear_key_head_dim": 8, "linear_value_head_dim": 8}
QWEN = {**LINEAR, "layer_types": ["linear_attention", "full_attention"]}
QWEN_VISION = {"depth": 1, "hidden_size": 8, "num_heads": 2, "intermediate_size": 8}
QWEN_VISION |= {"out_hidden_size": 16, "patch_size": 8}
EXPERTS = {"moe_intermediate_size": 8, "num_experts": 3, "num_experts_per_tok": 2}
EXPERTS |= {"shared_expert_intermediate_size": 8}
FAMILIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gemma3": ({}, {"vision_config": VISION}),
    "gemma4": (GEMMA_4, {"vision_config": {**VISION, "head_dim": 4}, "audio_config": None}),
    "qwen3_5": (QWEN, {"vision_config": QWEN_VISION}),
    "qwen3_5_moe": ({**QWEN, **EXPERTS}, {"vision_config": QWEN_VISION}),
    "llava": ({}, {"vision_config": VISION}),
}
NAMES = {"language_model.model.": "model.language_model.", "language_model.lm_head.": "lm_head."}
"""Of older folders, as save_pretrained writes Gemma 3 and LLaVA, and of newer ones."""


def save_multimodal(folder: Path, family: str, **changes: Any) -> Any:
    text, parts = FAMILIES[family]
    config = AutoConfig.for_model(
        family, text_config={**TEXT, **text}, image_token_id=NUM_LANGUAGE_TOKENS - 1, **parts
    )
    for key, value in changes.items():
        setattr(config, key, value)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = AutoModelForMultimodalLM.from_config(config).eval()
    model.save_pretrained(folder)
    save_language_tokenizer(folder)
    return model


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    ids_BT = torch.arange(2 * 12).view(2, 12) % (NUM_LANGUAGE_TOKENS - 1)
    return model(input_ids=ids_BT, use_cache=False).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_its_logits_are_the_whole_models(family: str, tmp_path: Path) -> None:
    whole = save_multimodal(tmp_path, family)
    model = load_language_model(tmp_path)
    torch.testing.assert_close(logits(model), logits(whole), atol=1e-5, rtol=0)
    info = check_language_folder(tmp_path)
    assert (info.num_layers, info.hidden, info.max_positions) == (2, 16, 32)
    assert info.num_params == model.num_parameters() < whole.num_parameters()
    assert info.is_tied == (model.lm_head.weight is model.get_input_embeddings().weight)
    assert not any(part.__class__.__name__.endswith("VisionModel") for part in model.modules())
    described_shapes = {n: t.shape for n, t in described(tmp_path).state_dict().items()}
    assert described_shapes == {n: t.shape for n, t in model.state_dict().items()}


@pytest.mark.parametrize("family", ["gemma3", "llava"])
def test_names_of_older_and_newer_folders(family: str, tmp_path: Path) -> None:
    whole = save_multimodal(tmp_path, family)
    weights = load_file(tmp_path / "model.safetensors")
    assert any(name.startswith("language_model.model.") for name in weights)
    torch.testing.assert_close(logits(load_language_model(tmp_path)), logits(whole))
    for old, new in NAMES.items():
        weights = {n.replace(old, new) if n.startswith(old) else n: t for n, t in weights.items()}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    check_language_folder(tmp_path)
    torch.testing.assert_close(logits(load_language_model(tmp_path)), logits(whole))


@pytest.mark.parametrize("family", ["gemma3", "qwen3_5"])
def test_a_student_that_starts_from_it_is_exported_as_a_model_of_text(
    family: str, tmp_path: Path
) -> None:
    start, out = tmp_path / "start", tmp_path / "out"
    whole = save_multimodal(start, family)
    student = build_language_student(Student(path=str(start)), start, 16, seed=1)
    export(student, start, out, ModelCard("s"))
    alone = AutoModelForCausalLM.from_pretrained(out).eval()
    assert type(alone) is type(student)
    torch.testing.assert_close(logits(alone), logits(whole), atol=1e-5, rtol=0)
    assert check_language_folder(out).model_type == f"{family}_text"


def test_a_missing_weight_of_the_text_part_is_refused(tmp_path: Path) -> None:
    save_multimodal(tmp_path, "gemma3")
    weights = load_file(tmp_path / "model.safetensors")
    kept = {n: t for n, t in weights.items() if not n.endswith("layers.1.mlp.up_proj.weight")}
    assert len(kept) == len(weights) - 1
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"holds [\d,]+ of the [\d,]+ parameters"):
        check_language_folder(tmp_path)
    with pytest.raises(ModelError, match=r"lacks 1 weights .*first: .*layers.1.mlp.up_proj"):
        load_language_model(tmp_path)


def test_a_family_whose_text_part_is_no_model_of_its_own_is_refused(tmp_path: Path) -> None:
    config = AutoConfig.for_model("qwen3_vl", text_config=TEXT, vision_config=QWEN_VISION)
    AutoModelForMultimodalLM.from_config(config).save_pretrained(tmp_path)
    save_language_tokenizer(tmp_path)
    with pytest.raises(ModelError, match=r"the text part of a qwen3_vl model .* has no language m"):
        check_language_folder(tmp_path)


def test_one_saved_without_a_head_is_refused(tmp_path: Path) -> None:
    save_multimodal(tmp_path, "gemma3")
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = ["Gemma3Model"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="Gemma3Model, which has no language-model head"):
        check_language_folder(tmp_path)
