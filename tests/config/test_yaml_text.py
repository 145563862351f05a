"""Numbers, words and sections through the one reader and writer of YAML."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from distill.config import load
from distill.config.overrides import parse_override
from distill.config.yaml_text import read_yaml, write_yaml
from distill.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E4", 1e4),
        ("+1e4", 1e4),
        ("1.5e3", 1500.0),
        ("1.e3", 1000.0),
        (".5e3", 500.0),
        ("-.5", -0.5),
        ("1.0e-4", 1e-4),
        ("12", 12),
    ],
)
def test_numbers_of_yaml_1_2(text: str, value: float) -> None:
    found = read_yaml(text)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    "text", ["'1e-4'", '"1e4"', "08", "1e", "e5", "1e4x", "a1e4", "1e-4-b", "v1.5e3", "0x1e", "-"]
)
def test_everything_else_is_what_pyyaml_makes_of_it(text: str) -> None:
    assert read_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    "value", ["1e-4", "1E4", "-.5", "1.5e3", 1e-4, 1e22, 5e-324, math.pi, "08"]
)
def test_what_is_written_is_read_back(value: str | float) -> None:
    found = read_yaml(write_yaml({"a": [value]}))["a"][0]
    assert (type(found), found) == (type(value), value)


def test_a_file_and_an_override_read_the_same_number(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(
        "data: {path: x}\nsearch: {space: {optimizer.lr: {type: choice, values: [1e-4, 3e-4]}}}"
    )
    experiment = load(path, ["optimizer.weight_decay=1e-2", "trainer.batch_size=1e2"])
    assert experiment.search is not None
    assert experiment.search.space["optimizer.lr"].ends == (1e-4, 3e-4)
    assert experiment.optimizer.weight_decay == 0.01
    assert experiment.trainer.batch_size == 100
    assert parse_override("a.b='1e-4'") == ("a.b", "1e-4")


def test_a_word_that_reads_as_a_number_must_be_quoted(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text("data: {path: x}")
    with pytest.raises(
        ConfigError, match=r"tracking\.run_name must be text, got 10000\.0: put it in quotes"
    ):
        load(path, ["tracking.run_name=1e4"])
    assert load(path, ["tracking.run_name='1e4'"]).tracking.run_name == "1e4"
