"""Trained weights of teachers in a folder: written, read back, and refused.

Shape suffixes: N rows, K teachers, H features.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from distill.aggregation import Attention, LearnedRouter, TrainedWeights
from distill.aggregation.saved import PARAMETERS, SETTINGS, read_weights, save_weights
from distill.errors import ModelError

K, H = 3, 7
TEACHERS = ("a", "b", "Zoë")


def network_of(aggregation: TrainedWeights) -> nn.Module:
    network: Any = aggregation.build(K, 4, H)
    for seed, param in enumerate(network.parameters()):
        nn.init.normal_(param, generator=torch.Generator().manual_seed(seed))
    return network


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "aggregation",
    [Attention(hidden=9, dropout=0.5, per="sample"), LearnedRouter(per="sample")],
    ids=lambda a: a.type,
)
def test_weights_that_are_read_are_those_that_were_saved(
    tmp_path: Path, aggregation: TrainedWeights, dtype: torch.dtype
) -> None:
    network = network_of(aggregation).to(dtype)
    folder = tmp_path / "report" / "aggregation"
    save_weights(folder, aggregation, TEACHERS, network)
    save_weights(folder, aggregation, TEACHERS, network)  # a resumed run writes again
    saved = read_weights(folder)
    assert saved.aggregation == aggregation and saved.teachers == TEACHERS
    hidden_NH = torch.randn(5, H, generator=torch.Generator().manual_seed(9))
    network = network.float().eval()
    weights_KN = saved.weights(hidden_NH.double())  # any dtype; in evaluation, without dropout
    torch.testing.assert_close(weights_KN, network(hidden_NH).softmax(1).T)
    assert weights_KN.dtype == torch.float32 and not weights_KN.requires_grad
    torch.testing.assert_close(weights_KN.sum(0), torch.ones(5))
    assert torch.equal(read_weights(str(folder)).weights(hidden_NH), weights_KN)


def test_the_folder_has_readable_settings_and_float32_parameters(tmp_path: Path) -> None:
    aggregation = Attention(hidden=9)
    save_weights(tmp_path, aggregation, TEACHERS, network_of(aggregation).bfloat16())
    text = (tmp_path / SETTINGS).read_text("utf-8")
    about = json.loads(text)
    assert about.pop("aggregation") == aggregation.model_dump(mode="json")
    assert about == {"version": 2, "teachers": list(TEACHERS), "num_features": H}
    assert "Zoë" in text and text.startswith('{\n "version": 2,\n')
    state = load_file(tmp_path / PARAMETERS)
    assert state and all(tensor.dtype == torch.float32 for tensor in state.values())


def test_a_folder_without_them_or_of_another_version_is_refused(tmp_path: Path) -> None:
    no_weights = (
        rf"(?s)^{tmp_path} holds no trained weights of teachers \(.*\): give the folder report"
    )
    with pytest.raises(ModelError, match=no_weights):
        read_weights(tmp_path)
    learned = LearnedRouter()
    save_weights(tmp_path, learned, TEACHERS, network_of(learned))
    settings, parameters = tmp_path / SETTINGS, (tmp_path / PARAMETERS).read_bytes()
    about = json.loads(settings.read_text("utf-8"))
    settings.write_text(json.dumps(about | {"version": 7}))
    with pytest.raises(ModelError, match=r"holds version 7 of aggregation.type learned, this is"):
        read_weights(tmp_path)
    broken: list[dict[str, Any]] = [
        {"aggregation": {"type": "mean"}},
        {"teachers": ["a"]},  # the parameters are those of three
        {"num_features": H + 1},
    ]
    for change in broken:
        settings.write_text(json.dumps(about | change))
        with pytest.raises(ModelError, match=no_weights):
            read_weights(tmp_path)
    del about["teachers"]
    settings.write_text(json.dumps(about))
    with pytest.raises(ModelError, match=no_weights):
        read_weights(tmp_path)
    settings.write_text("{")
    (tmp_path / PARAMETERS).write_bytes(parameters)
    with pytest.raises(ModelError, match=no_weights):
        read_weights(tmp_path)
