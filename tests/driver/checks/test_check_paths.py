"""A model that is not there is refused by its key, whatever the data are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill.config import parse
from distill.driver.checks.check import check
from distill.driver.checks.paths import check_paths
from distill.errors import DataError, ModelError

HUB = "distilbert/distilbert-base-uncased"
DATA = {
    "path": "s3://bucket/rows.csv",
    "columns": {"domain": "d"},
}  # not looked for: remote
RAW: dict[str, Any] = {"data": DATA, "output": "run"}
ADAPTER = {"name": "a", "path": "folder", "adapter": HUB}
BASELINE = {"type": "labels_only", "name": "own", "student": {"path": HUB}}


MODELS: list[tuple[dict[str, Any], str]] = [
    ({"teachers": [{"name": "films", "path": HUB}]}, "teachers.films.path"),
    ({"task": "language_model", "teachers": [ADAPTER]}, "teachers.a.adapter"),
    ({"experts": {"base": HUB}}, "experts.base"),
    ({"student": {"path": HUB}}, "student.path"),
    ({"student": {"tokenizer": HUB}}, "student.tokenizer"),
    ({"student": {"init_from": {"path": HUB, "layers": 1}}}, "student.init_from.path"),
    ({"aggregation": {"type": "routed", "router": HUB}}, "aggregation.router"),
    ({"baselines": [BASELINE]}, "baselines.own.student.path"),
]


@pytest.mark.parametrize(("changes", "key"), MODELS)
def test_the_key_and_the_download_are_named(
    changes: dict[str, Any], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    with pytest.raises(ModelError) as caught:
        check(parse(RAW | changes))
    kind = key.rpartition(".")[2]
    what = kind if kind in ("adapter", "tokenizer") else "model"
    assert str(caught.value).startswith(f"{key}: there is no {what} folder {HUB}: check the path")
    assert f"hf download {HUB} --local-dir models/distilbert-base-uncased" in str(caught.value)


@pytest.mark.parametrize(("changes", "key"), MODELS)
def test_a_tilde_is_the_home_folder(
    changes: dict[str, Any], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("folder", "model"):
        Path(name).mkdir()
    experiment = parse(RAW | json.loads(json.dumps(changes).replace(HUB, "~/model")))
    check_paths(experiment)
    assert "~" not in experiment.model_dump_json()


def test_a_pickle_that_is_absent_is_a_file(tmp_path: Path) -> None:
    path = str(tmp_path / "forest.pkl")
    teacher = {"name": "forest", "path": path, "allow_pickle": True}
    with pytest.raises(ModelError, match=r"^teachers\.forest\.path: there is no file .*path$"):
        check_paths(parse(RAW | {"teachers": [teacher]}))


def test_every_path_has_a_line_and_the_nearest_name_is_proposed(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").touch()
    data = {"path": [str(tmp_path / "review.csv"), str(tmp_path / "*.parquet")]}
    teacher = {"name": "a", "path": str(tmp_path / "nothing")}
    with pytest.raises(DataError) as caught:
        check_paths(parse(RAW | {"data": data, "teachers": [teacher]}))
    first, second = str(caught.value).splitlines()
    assert first.startswith("data.path: there is no file or folder")
    assert first.endswith(f"review.csv: did you mean {tmp_path}/reviews.csv?")
    assert second == f"teachers.a.path: there is no model folder {tmp_path}/nothing: check the path"


def test_what_is_there_passes(tmp_path: Path) -> None:
    (tmp_path / "forest.pkl").touch()
    teachers = [{"name": "forest", "path": str(tmp_path / "forest.pkl")}]
    check_paths(parse(RAW | {"teachers": teachers, "student": {"tokenizer": str(tmp_path)}}))
