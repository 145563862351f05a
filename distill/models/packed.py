"""Whether a language model keeps packed sequences apart.

Blocks of packed sequences come without a mask: positions that start anew tell where one begins. A
family that reads no positions (Mamba, Bloom), or carries a state from token to token besides its
attention (Jamba), would let a sequence see those before it, and say nothing.

Shape suffixes: B rows, T tokens.
"""

from __future__ import annotations

import copy
import inspect
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig

from distill.errors import ConfigError, ModelError
from distill.models.decoder import base_of, plain
from distill.models.tokenizer import quiet

_MOST = 4_000_000
"""Parameters of a model that is tried out."""
_SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "mamba_expand": 2,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_d_ssm": 64,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "ssm_state_size": 8,
    "n_groups": 1,
    "lru_width": 32,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
LENGTH = 8
WAY_OUT = "set data.packing: false, or use another model"


def check_takes_positions(key: str, model: nn.Module) -> None:
    """Raise ConfigError, naming ``key``, for a family that cannot keep sequences apart by their
    positions; needs no weights. Found out on a tiny model of the family where one can be made;
    loading the weights tells for all (``check_keeps_apart``)."""
    kind = plain(model).config.model_type
    if "position_ids" not in inspect.signature(type(plain(model)).forward).parameters:
        raise ConfigError(
            f"{key}: a {kind} model reads no positions, so packed sequences would attend to each "
            f"other: {WAY_OUT}"
        )
    if _family_keeps_apart(plain(model).config) is False:
        raise ConfigError(
            f"{key}: in a {kind} model packed sequences attend to each other, whatever their "
            f"positions: {WAY_OUT}"
        )


def _family_keeps_apart(config: PretrainedConfig) -> bool | None:
    """Of a small random model that mixes its tokens as one of ``config`` does, with a layer of each
    kind; None where the family's dimensions do not go together so."""
    config = copy.deepcopy(config)
    kinds = list(dict.fromkeys(getattr(config, "layer_types", None) or ()))
    num_layers = max(2, len(kinds))
    sizes = {**_SIZES, "layer_types": (kinds * 2)[:num_layers], "num_hidden_layers": num_layers}
    for key, value in sizes.items():
        with suppress(Exception):  # of a family that computes the key, or checks it at once
            if getattr(config, key, None) is not None:
                setattr(config, key, value)
    try:
        with quiet():
            with torch.device("meta"):
                if AutoModelForCausalLM.from_config(config).num_parameters() > _MOST:
                    return None
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)
                tiny = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        return keeps_apart(tiny)
    except Exception:  # whatever dimensions that do not fit end in
        return None


@torch.no_grad()
def keeps_apart(model: nn.Module) -> bool:
    """Whether a sequence's hidden states do not depend on the one packed before it."""
    base = base_of(model)
    was_training = base.training
    base.eval()
    try:
        embeddings: Any = base.get_input_embeddings()
        ids_T = torch.arange(3 * LENGTH, device=base.device) * 7 + 1
        one_T, other_T, last_T = (ids_T % embeddings.num_embeddings).split(LENGTH)
        on_T = torch.arange(2 * LENGTH, device=base.device)

        def difference(places_T: Tensor) -> Tensor:
            """What it makes to the last sequence which one is before it."""
            ids_BT = torch.stack([torch.cat([one_T, last_T]), torch.cat([other_T, last_T])])
            found = base(input_ids=ids_BT, position_ids=places_T.expand(2, -1), use_cache=False)
            last_BTH = found.last_hidden_state[:, LENGTH:].float()
            return (last_BTH[0] - last_BTH[1]).norm()

        # A mixture of experts may round otherwise; a sequence in sight makes far more of it.
        return bool(difference(on_T % LENGTH) <= 0.01 * difference(on_T))
    finally:
        base.train(was_training)


def check_keeps_apart(who: str, model: nn.Module) -> None:
    """Raise ModelError unless ``keeps_apart``."""
    if not keeps_apart(model):
        raise ModelError(
            f"{who}: a {plain(model).config.model_type} model lets packed sequences see each "
            f"other: {WAY_OUT}"
        )
