"""Adapters of any family: what peft wrote fits its base, and does there what peft makes it do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import save_decoder

from distill.models.adapter import Adapters, check_adapter, read_adapter
from distill.models.language import load_language_model
from tests.toys_adapters import alone, write_adapter

IDS = torch.arange(3, 12)[None]
OTHER: dict[str, Any] = {
    "r": 2,
    "use_rslora": True,
    "target_modules": r".*\.(q_proj|c_attn)",
    "rank_pattern": {"layers.1.self_attn.q_proj": 3},
    "init_lora_weights": "gaussian",
}


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", "qwen3", "mixtral", "olmoe"])
def test_two_on_one_base_are_what_each_is_alone(family: str, tmp_path: Path) -> None:
    save_decoder(tmp_path / "base", family)
    folders = [tmp_path / "one", tmp_path / "other"]
    targets = ["q_proj", "o_proj"] if family in ("mixtral", "olmoe") else "all-linear"
    write_adapter(folders[0], tmp_path / "base", 0, target_modules=targets)
    write_adapter(folders[1], tmp_path / "base", 1, **OTHER)
    for folder in folders:
        info = read_adapter(folder)
        check_adapter(info, tmp_path / "base")
        own = load_language_model(tmp_path / "base")
        adapters = Adapters(own, [folder])
        stored = sum(p.numel() for n, p in adapters.model.named_parameters() if ".lora_" in n)
        assert info.num_params == stored > 0
    together = Adapters(load_language_model(tmp_path / "base"), folders)
    with torch.inference_mode():
        for number in (0, 1, 0):
            together.activate(number)
            expected = alone(tmp_path / "base", folders[number])(IDS).logits
            assert torch.equal(together.model(IDS).logits, expected)
        assert not torch.equal(together.model(IDS).logits, own(IDS).logits)
    assert not any(p.requires_grad for n, p in together.model.named_parameters() if ".lora_" in n)
