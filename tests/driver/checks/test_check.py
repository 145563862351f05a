"""What can be known before a process starts is refused before one does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from distill.config import parse
from distill.driver.checks.check import check
from distill.errors import ConfigError, DataError, InputError, ModelError, RunFolderError
from distill.run_folder import RunFolder
from tests.toys import toy_experiment, write_encoder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("check")
    toy_experiment(folder)
    write_encoder(folder / "expert", num_labels=2)
    write_encoder(folder / "three", num_labels=3)
    pickled = write_encoder(folder / "pickled", num_labels=2)
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    return folder


def experiment(root: Path, tmp_path: Path, changes: dict[str, Any]) -> Any:
    raw = toy_experiment(root) | {"output": str(tmp_path / "run")}
    for key, value in changes.items():
        node = raw
        *parents, last = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    if "teachers" in changes:
        raw.pop("experts")
        raw["aggregation"] = {"type": "mean"}
    return parse(raw)


def test_a_good_experiment_gives_a_plan(root: Path, tmp_path: Path) -> None:
    plan = check(experiment(root, tmp_path, {}))
    assert plan.teacher_names == ("films", "meals", "tools") and not plan.is_resuming
    shown = {line.part: f"{line.what} {line.size}" for line in plan.lines}
    assert "train 162, transfer 162, validation 78, test 78" in shown["data"]
    assert "1.4 CPUs" in shown["resources"] and "M parameters" in shown["student"]
    assert not (tmp_path / "run").exists(), "a check leaves nothing behind"


def test_a_transport_that_is_not_installed_is_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill.driver.checks.resources.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"stream.transport nixl needs .*: pip install nixl"):
        check(experiment(root, tmp_path, {"stream.transport": "nixl"}))


def test_batched_requests_are_refused_where_one_is_taken_at_a_time(
    root: Path, tmp_path: Path
) -> None:
    changes = {"stream.transport": "nixl", "experts.serving.batch_requests": True}
    with pytest.raises(ConfigError, match=r"experts.serving.batch_requests: true cannot .* nixl"):
        check(experiment(root, tmp_path, changes))


def teacher(root: Path, *names: str) -> list[dict[str, Any]]:
    return [{"name": n, "path": str(root / n), "num_cpus": 0.1} for n in names]


BAD: list[tuple[dict[str, Any], type[InputError], str]] = [
    ({"data.path": "absent.parquet"}, DataError, "absent.parquet"),
    ({"data.columns.text": "body"}, DataError, "data.columns.text 'body' is not a column"),
    ({"data.labels": ["no", "maybe"]}, DataError, "label 'yes' .* not among the labels"),
    ({"data.max_length": 100}, ConfigError, "data.max_length 100 is longer than the 24 positions"),
    ({"experts.base": "absent"}, ModelError, "no model folder absent"),
    ({"trainer.batch_size": 500}, ConfigError, "trainer.batch_size 500 is larger than .*162 rows"),
    ({"trainer.num_workers": 64}, ConfigError, "batch_size 16 is smaller than trainer.num_workers"),
    ({"trainer.num_gpus_per_worker": 99}, ConfigError, "need 99 GPUs at once, this machine has"),
    ({"experts.serving.num_cpus": 999}, ConfigError, "CPUs at once, this machine has"),
    ({"aggregation.k": 4}, ConfigError, r"aggregation.k must lie between 1 and .* \(3\).*got 4"),
    (
        {"aggregation": {"type": "single", "teacher": "cars"}},
        ConfigError,
        "'cars' is not a",
    ),
    (
        {"experts.partition": {"type": "kmeans"}, "aggregation": {"type": "oracle"}},
        ConfigError,
        r"no teacher is named 'films', the domain of row \d+ of the train split: the teachers are ",
    ),
    (
        {
            "data.columns.domain": None,
            "experts.partition": {"type": "kmeans"},
            "aggregation": {"type": "oracle"},
        },
        DataError,
        "162 rows of the train split have no domain, the first from row 1 of .*: give data.columns",
    ),
    ({"student.heads": 5}, ConfigError, "heads"),
    ({"student": {"size_mb": 0.001}}, ConfigError, "student.size_mb"),
    ({"student": {"path": "absent"}}, ModelError, "absent"),
    ({"experts.train_layers": 3}, ConfigError, "experts.train_layers is 3, .* has 2 layers"),
    ({"experts.batch_size": 100}, ConfigError, "experts.batch_size 100 is larger than the 54 tr"),
    ({"data.columns.domain": "text"}, DataError, "the domain .* has no train rows"),
    ({"output": f"{__file__}/run"}, RunFolderError, "cannot be written"),
]


@pytest.mark.parametrize(("changes", "kind", "message"), BAD, ids=["+".join(b[0]) for b in BAD])
def test_bad_input_is_refused(
    root: Path, tmp_path: Path, changes: dict[str, Any], kind: type[InputError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        check(experiment(root, tmp_path, changes))
    assert caught.value.exit_code == 2


def test_teachers_must_share_the_labels_of_the_data(root: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"'three' .* 3 labels no, yes, maybe, those of teacher 'expert' "
    ):
        check(experiment(root, tmp_path, {"teachers": teacher(root, "expert", "three")}))
    both = {"teachers": teacher(root, "expert"), "data.labels": ["yes", "no"]}
    plan = check(experiment(root, tmp_path, both))
    assert plan.corpus.label_names == ("yes", "no") and plan.columns == {"expert": (1, 0)}
    with pytest.raises(ModelError, match="no classification head"):
        check(experiment(root, tmp_path, {"teachers": teacher(root, "encoder")}))


def test_pickles_are_refused_unless_allowed(root: Path, tmp_path: Path) -> None:
    given = teacher(root, "pickled")
    with pytest.raises(ModelError, match=r"pickle pytorch_model.bin.*allow_pickle: true"):
        check(experiment(root, tmp_path, {"teachers": given}))
    given[0]["allow_pickle"] = True
    assert check(experiment(root, tmp_path, {"teachers": given})).teacher_names == ("pickled",)


def test_a_run_folder_belongs_to_one_experiment(root: Path, tmp_path: Path) -> None:
    first = check(experiment(root, tmp_path, {}))
    run = RunFolder(tmp_path / "run")
    run.claim(first.experiment, first.identity)
    assert check(experiment(root, tmp_path, {})).is_resuming
    # How and where it runs may change; what it computes may not.
    assert check(experiment(root, tmp_path, {"trainer.log_every": 3})).is_resuming
    with pytest.raises(
        RunFolderError, match=r"another experiment: kd.alpha is 0.1 \(0.7 in the folder\)"
    ):
        check(experiment(root, tmp_path, {"kd.alpha": 0.1}))
    # A folder that a version without data.cut wrote: it cut to the head.
    assert not {"data.cut", "experts.router.targets"} & first.identity.keys()
    with pytest.raises(RunFolderError, match=r"data\.cut is 'tail' \(not set in the folder\)"):
        check(experiment(root, tmp_path, {"data.cut": "tail"}))
    (tmp_path / "run/experiment.json").write_text("{")
    with pytest.raises(RunFolderError, match="unreadable"):
        check(experiment(root, tmp_path, {}))
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("")
    with pytest.raises(RunFolderError, match="a folder with other files"):
        check(experiment(root, tmp_path, {"output": str(other)}))


def test_the_claim_keeps_the_configuration(root: Path, tmp_path: Path) -> None:
    plan = check(experiment(root, tmp_path, {}))
    RunFolder(tmp_path / "run").claim(plan.experiment, plan.identity)
    kept = json.loads((tmp_path / "run/experiment.json").read_text())
    assert kept["kd.temperature"] == 2.0 and kept["data.fingerprint"] == plan.corpus.fingerprint
    assert "trainer.num_workers" not in kept and "experts.serving.num_cpus" not in kept


def test_one_process_has_the_folder(root: Path, tmp_path: Path) -> None:
    plan = check(experiment(root, tmp_path, {}))
    first, second = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    first.claim(plan.experiment, plan.identity)
    with pytest.raises(RunFolderError, match="another distill is running"):
        second.claim(plan.experiment, plan.identity)
    first.close()
    second.claim(plan.experiment, plan.identity)


def test_no_secret_is_copied(root: Path, tmp_path: Path) -> None:
    uri = "https://someone:hunter2@127.0.0.1:1"
    plan = check(experiment(root, tmp_path, {"tracking.uri": uri}))
    RunFolder(tmp_path / "run").claim(plan.experiment, plan.identity)
    written = [path.read_text() for path in (tmp_path / "run").iterdir()]
    assert len(written) == 3 and not any("hunter2" in text for text in written)
    assert any("https://***@127.0.0.1:1" in text for text in written)
