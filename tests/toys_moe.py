"""Tiny mixtures of experts of several families, and a request about a few rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import (
    MixtralConfig,
    MixtralForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    PreTrainedModel,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from distill.config.moe import MoE
from distill.teachers.requests import TeacherRequest
from distill.wires import DenseWire, WireFormat
from tests.toys_language import NUM_TOKENS
from tests.toys_teachers import backend_of

NUM_EXPERTS, OWN = 4, 2
SIZES: dict[str, Any] = {
    "vocab_size": NUM_TOKENS,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "intermediate_size": 16,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": None,
    # Large: else all experts do next to nothing, and whom one asks makes no difference.
    "initializer_range": 0.3,
}
FAMILIES: dict[str, tuple[Any, Any, str]] = {
    "mixtral": (MixtralConfig, MixtralForCausalLM, "num_local_experts"),
    "qwen2": (Qwen2MoeConfig, Qwen2MoeForCausalLM, "num_experts"),
    "qwen3": (Qwen3MoeConfig, Qwen3MoeForCausalLM, "num_experts"),
    "olmoe": (OlmoeConfig, OlmoeForCausalLM, "num_experts"),
}
DENSE = DenseWire(dtype="float32")


def mixture(
    family: str = "mixtral", own: int = OWN, seed: int = 0, num_layers: int = 2
) -> PreTrainedModel:
    config, causal, experts = FAMILIES[family]
    changes = {experts: NUM_EXPERTS, "num_experts_per_tok": own, "num_hidden_layers": num_layers}
    settings = config(**SIZES | changes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return causal(settings).eval()


def engine(model: Any, moe: MoE | None = None, **changes: Any) -> Any:
    return backend_of(
        model, num_labels=NUM_TOKENS, wire=DENSE, is_language_model=True, moe=moe, **changes
    )


def request(num_rows: int = 3, num_tokens: int = 10, **changes: Any) -> TeacherRequest:
    """Rows 40, 41 … about their positions from the fourth token on."""
    ids_BT = np.random.default_rng(0).integers(0, NUM_TOKENS, (num_rows, num_tokens))
    targets_BT = np.zeros(ids_BT.shape, bool)
    targets_BT[:, 3:-1] = True
    wire: WireFormat = DENSE
    return TeacherRequest(
        **{
            "request_id": "t/0/0",
            "rows_B": 40 + np.arange(num_rows),
            "input_ids_BT": ids_BT,
            "position_ids_BT": np.tile(np.arange(num_tokens), (num_rows, 1)),
            "targets_BT": targets_BT,
            "wire": wire,
            **changes,
        }
    )


def plain(model: PreTrainedModel, asked: TeacherRequest) -> np.ndarray:
    """[P, V]: the model's own logits, by its own forward."""
    inputs = {name: torch.from_numpy(values) for name, values in asked.inputs().items()}
    with torch.no_grad():
        return model(**inputs, use_cache=False).logits[torch.from_numpy(asked.targets_BT)].numpy()
