"""One message for each mistake, and the shipped files are right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from distill.config import Experiment, load, parse
from distill.errors import ConfigError

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "configs").glob("*.yaml"))
SMALL = {"data": {"path": "x.parquet"}, "output": "out"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_configurations_load(path: Path) -> None:
    experiment = load(path)
    assert experiment.output == f"runs/{path.stem}"
    assert experiment.tracking.experiment == path.stem
    assert parse(experiment.model_dump(mode="json")) == experiment


def test_schema_for_editors_is_current() -> None:
    written = json.loads((ROOT / "configs/experiment.schema.json").read_text())
    assert written == Experiment.model_json_schema(), "write it anew with distill schema"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kd": {"temprature": 2}}, r"unknown key kd\.temprature: did you mean temperature\?"),
        ({"studnet": {}}, r"unknown key studnet: did you mean student\?"),
        (
            {"aggregation": {"type": "routed", "kk": 1}},
            r"unknown key aggregation\.kk: did you mean k",
        ),
        ({"objective": {"type": "klx"}}, r"objective\.type must be one of forward_kl, reverse"),
        ({"kd": {"temperature": 0}}, r"kd\.temperature must be greater than 0, got 0"),
        ({"kd": {"alpha": 1.5}}, r"kd\.alpha must be less than or equal to 1, got 1\.5"),
        ({"trainer": {"zero_stage": 4}}, r"trainer\.zero_stage must be one of 0, 1, 2, 3, got 4"),
        ({"trainer": {"batch_size": "many"}}, r"trainer\.batch_size must be a whole number, got"),
        ({"student": {"scale": "tiny", "layers": 2}}, r"student\.scale already fixes the size"),
        ({"student": {"scale": "tiny", "path": "x"}}, r"give one of student\.path and student\.sc"),
        ({"data": {}}, r"data\.path is missing: add it"),
        ({"aggregation": {"type": "routed"}}, r"'routed' needs a router: give aggregation\.router"),
        ({"experts": {"base": "b"}}, r"'column' needs data\.columns\.domain"),
        ({"data": {"path": "x", "labels": ["a"]}}, r"data\.labels needs at least two"),
        ({"optimizer": {"lr": float("nan")}}, r"optimizer\.lr must be a finite number"),
        (
            {"teachers": [{"name": "a", "path": "x"}, {"name": "a", "path": "y"}]},
            r"two teachers are named 'a'",
        ),
        (
            {"teachers": [{"name": "Café", "path": "x"}, {"name": "cafe\u0301", "path": "y"}]},
            r"teachers: 'Café' and 'cafe\u0301' are too similar: names must differ in more than",
        ),
        ({"teachers": [{"name": " ", "path": "x"}]}, r"teachers\.0\.name: the name ' ' is blank"),
        ({"teachers": [{"name": "a\nb", "path": "x"}]}, r"the name 'a\\nb' holds a line break"),
        ({"teachers": [{"name": "a" * 201, "path": "x"}]}, r"has 201 characters, 200 at most"),
        ({"teachers": [{"name": 1e4, "path": "x"}]}, r"name must be text, got 10000\.0: put it in"),
        (
            {"baselines": [{"type": "tfidf", "name": "student"}]},
            r"'student' is the name of the",
        ),
    ],
)
def test_each_mistake_is_one_message(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse(SMALL | change)
    assert len(str(caught.value).splitlines()) == 1


def test_overrides_reach_sections_and_list_entries(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    teachers = [{"name": "a", "path": "x"}]
    path.write_text(yaml.safe_dump(SMALL | {"teachers": teachers}))
    experiment = load(path, ["kd.temperature=4", "teachers.0.path=z", "student.scale=mini"])
    assert experiment.kd.temperature == 4
    assert experiment.teachers[0].path == "z"
    assert experiment.student.scale == "mini"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("kd.temperature", "written key=value, got 'kd.temperature'"),
        ("kd.temperatur=2", "did you mean temperature"),
        ("output.x=1", "output is the value 'out', not a section"),
        ("teachers.3.path=x", r"teachers has 1 entry \(0\) named a, got the index 3"),
        ("kd={a", "is not a YAML value"),
    ],
)
def test_bad_overrides(tmp_path: Path, override: str, message: str) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(yaml.safe_dump(SMALL | {"teachers": [{"name": "a", "path": "x"}]}))
    with pytest.raises(ConfigError, match=message):
        load(path, [override])


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a: [", "not valid YAML"), (b"- 1", "mapping of keys"), (b"\xff\xfe\x00", "cannot read")],
)
def test_files_that_are_no_configuration(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "e.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load(path)
    with pytest.raises(ConfigError, match="no configuration file at"):
        load(tmp_path / "absent.yaml")
