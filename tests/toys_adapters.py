"""Tiny adapters on disk, that do something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from distill.models.language import load_language_model


def write_adapter(folder: Path, base: Path, seed: int, **config: Any) -> Path:
    """As peft writes one, of random updates."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        settings = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
        model = get_peft_model(load_language_model(base), LoraConfig(**settings | config))
        for name, tensor in model.named_parameters():
            if ".lora_B" in name:
                torch.nn.init.normal_(tensor, std=0.3)
        model.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def alone(base: Path, adapter: Path, dtype: str = "float32") -> Any:
    """A transformers model with one adapter, as peft loads it: not merged."""
    wrapped = PeftModel.from_pretrained(load_language_model(base, dtype), str(adapter))
    return wrapped.get_base_model().eval()
