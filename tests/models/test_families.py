"""What families of language models do differently is found out, not looked up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from distill.errors import ConfigError, ModelError
from distill.models.packed import check_keeps_apart, check_takes_positions, keeps_apart
from distill.models.plain_head import has_plain_head

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}


def tiny(family: str) -> Any:
    config = AutoConfig.for_model(family)
    for key, value in SMALL.items():
        setattr(config, key, value)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", "mixtral"])
def test_sequences_are_kept_apart(family: str) -> None:
    model = tiny(family)
    check_takes_positions("teachers.a", model)
    check_keeps_apart("teacher a", model)
    assert keeps_apart(model.to(torch.bfloat16))


@pytest.mark.parametrize("family", ["opt", "mamba", "bloom"])
def test_a_family_that_lets_them_see_each_other_is_refused(family: str) -> None:
    """OPT counts positions of its own when there is no mask, the others take none."""
    model = tiny(family)
    with pytest.raises(ModelError, match=f"teacher a: a {family} model .* data.packing: false"):
        check_keeps_apart("teacher a", model)
    if family != "opt":
        with pytest.raises(ConfigError, match=f"teachers.a: a {family} model reads no positions"):
            check_takes_positions("teachers.a", model)


@pytest.mark.parametrize("family", ["opt", "gpt_oss", "qwen3_5_text", "jamba", "minimax", "lfm2"])
def test_check_finds_it_out_without_weights(family: str) -> None:
    """Of a model as large as published: families that carry a state, or mask by no position."""
    config = AutoConfig.for_model(family)
    if family == "lfm2":
        config.layer_types = ["conv", "full_attention"] * (config.num_hidden_layers // 2)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert model.num_parameters() > 1e8
    with pytest.raises(ConfigError, match=f"t.a: a {family} model lets packed .*packing: false"):
        check_takes_positions("t.a", model)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen3_moe", "gpt2"])
def test_check_leaves_the_others(family: str) -> None:
    with torch.device("meta"):
        check_takes_positions("t.a", AutoModelForCausalLM.from_config(AutoConfig.for_model(family)))


@pytest.mark.parametrize(
    ("family", "is_plain"),
    [
        ("llama", True),
        ("gpt2", True),
        ("mixtral", True),
        ("gemma2", False),
        ("cohere", False),
        ("granite", False),
        ("opt", None),
    ],
)
def test_logits_that_are_changed_behind_the_head(family: str, is_plain: bool | None) -> None:
    config = AutoConfig.for_model(family)
    with torch.device("meta"):
        assert has_plain_head(AutoModelForCausalLM.from_config(config)) is is_plain
