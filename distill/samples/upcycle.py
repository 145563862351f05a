"""A dense language model as a mixture of equal experts, to be tuned apart (sparse upcycling).

Komatsuzaki et al. 2023, arXiv 2212.05055.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from distill.models.load import seeded

_SHARED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "rope_parameters",
    "tie_word_embeddings",
    "attention_dropout",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
)


@torch.no_grad()
def upcycled(
    model: LlamaForCausalLM, num_experts: int = 4, num_queried: int = 2, seed: int = 0
) -> MixtralForCausalLM:
    """Every expert of every layer is that layer's feed-forward network, the routers are drawn.

    The weights of the experts that a token asks sum to 1, so the logits are those of ``model``, but
    for rounding. [ours] The routers depend on ``seed``, not zero: of equal scores the first experts
    would always be chosen, and the others never trained.
    """
    config: Any = model.config
    assert not (config.attention_bias or config.mlp_bias), "Mixtral has no biases"
    values: dict[str, Any] = {key: copy.deepcopy(getattr(config, key)) for key in _SHARED}
    values |= {"num_local_experts": num_experts, "num_experts_per_tok": num_queried}
    with seeded(seed):
        mixture: Any = MixtralForCausalLM(MixtralConfig(**values))
    mixture.to(model.dtype)
    dense = {k: v for k, v in model.state_dict().items() if ".mlp." not in k}
    result = mixture.load_state_dict(dense, strict=False)
    assert not result.unexpected_keys
    assert all(".mlp." in key for key in result.missing_keys)
    layers: Any = model.model.layers
    for ours, theirs in zip(mixture.model.layers, layers, strict=True):
        gate_up = torch.cat([theirs.mlp.gate_proj.weight, theirs.mlp.up_proj.weight])
        ours.mlp.experts.gate_up_proj.copy_(gate_up.expand(num_experts, -1, -1))
        ours.mlp.experts.down_proj.copy_(theirs.mlp.down_proj.weight.expand(num_experts, -1, -1))
    mixture.generation_config = copy.deepcopy(model.generation_config)
    return mixture.eval()
