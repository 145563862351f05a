"""What of ``kd.schedule`` is refused before anything starts, and what the plan shows of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from distill.config import parse
from distill.driver.checks.check import check
from distill.errors import ConfigError, RunFolderError
from distill.run_folder import RunFolder, identity
from distill.search.plan import raw_of
from distill.search.values import with_values
from distill.tasks.checks.temperature import check_schedule
from distill.tracking.view import run_note
from tests.toys import toy_experiment
from tests.toys_language import language_experiment

GRID = {"type": "grid", "values": ["constant", "cosine"]}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("schedules")
    for name in ("classifier", "language"):
        (folder / name).mkdir()
    return folder


def classifier(root: Path, tmp_path: Path, schedule: Any, **changes: Any) -> dict[str, Any]:
    """324 rows in batches of 16 for 8 epochs: 168 steps."""
    raw = toy_experiment(root / "classifier", aggregation={"type": "mean"})
    kd = {"temperature": 4.0, "alpha": 0.7, "schedule": schedule}
    return raw | {"output": str(tmp_path / "run"), "kd": kd, **changes}


def language(root: Path, tmp_path: Path, schedule: Any, wire: Any, **changes: Any) -> Any:
    raw = language_experiment(root / "language")
    for teacher in raw["teachers"]:
        teacher["wire"] = wire
    kd = {"temperature": 2.0, "alpha": 1.0, "schedule": schedule}
    return raw | {"output": str(tmp_path / "run"), "kd": kd, **changes}


def shown(raw: dict[str, Any]) -> tuple[str, str] | None:
    lines = {line.part: (line.what, line.size) for line in check(parse(raw)).lines}
    return lines.get("temperature")


def test_the_plan_shows_a_temperature_that_varies(root: Path, tmp_path: Path) -> None:
    assert shown(classifier(root, tmp_path, {"type": "constant"})) is None
    assert shown(classifier(root, tmp_path, {"type": "cosine"})) == ("cosine, 2 to 6", "")
    reads = "reads ce.loss every 10 steps (trainer.log_every)"
    assert shown(classifier(root, tmp_path, {"type": "loss_ratio", "high": 5})) == (
        "loss_ratio, 2 to 5",
        reads,
    )
    auto = classifier(root, tmp_path, {"type": "auto"})
    # A tenth of the steps is 16.8, two intervals; three are needed.
    assert shown(auto) == ("auto, 2 to 6; 4 up to its choice at step 30", reads)
    auto["trainer"] = auto["trainer"] | {"log_every": 5}
    assert shown(auto) == ("auto, 2 to 6; 4 up to its choice at step 20", reads.replace("10", "5"))
    note = run_note(parse(auto), "run")
    assert "temperature 4 (auto, 2 to 6), alpha 0.7." in note
    constant = run_note(parse(classifier(root, tmp_path, {"type": "constant"})), "run")
    assert "temperature 4, alpha 0.7." in constant


@pytest.mark.parametrize(
    ("kind", "log_every", "most"),
    [("loss_ratio", 84, 83), ("convergence", 200, 83), ("auto", 56, 55)],
)
def test_intervals_that_are_too_long_are_refused(
    root: Path, tmp_path: Path, kind: str, log_every: int, most: int
) -> None:
    raw = classifier(root, tmp_path, {"type": kind})
    long = {"trainer": raw["trainer"] | {"log_every": log_every}}
    with pytest.raises(
        ConfigError,
        match=rf"kd.schedule.type {kind} reads the mean loss of each {log_every} steps .*168 steps"
        rf": set trainer.log_every to at most {most}, or use kd.schedule.type cosine or constant",
    ):
        check(parse(raw | long))
    check(parse(raw | {"trainer": raw["trainer"] | {"log_every": most}}))


def test_two_steps_are_too_few_for_any_interval(root: Path, tmp_path: Path) -> None:
    raw = classifier(root, tmp_path, {"type": "auto"})
    raw["trainer"] = raw["trainer"] | {"epochs": 0.1}  # 3 steps
    with pytest.raises(ConfigError, match="the 3 steps: train for more steps, or use kd"):
        check(parse(raw))


def test_without_labels_there_is_no_loss_to_read(root: Path, tmp_path: Path) -> None:
    experiment = parse(classifier(root, tmp_path, {"type": "convergence"}))
    rows = {"train": range(0, 100), "transfer": range(100, 324)}
    labels = np.full(324, -100)
    corpus = SimpleNamespace(
        rows=rows.__getitem__,
        labels_of=lambda rows: labels[np.array(rows)],
        is_self_labelled=False,
    )
    with pytest.raises(ConfigError, match=r"convergence follows .*no training row has a label"):
        check_schedule(experiment, corpus)
    labels[99] = 1
    check_schedule(experiment, corpus)


@pytest.mark.parametrize(
    "wire",
    [{"type": "topk", "k": 8, "temperatures": [1, 2, 3]}, {"type": "sampled", "temperature": 2}],
)
@pytest.mark.parametrize("kind", ["cosine", "auto"])
def test_wires_of_some_temperatures_are_refused(
    root: Path, tmp_path: Path, wire: dict[str, Any], kind: str
) -> None:
    with pytest.raises(
        ConfigError,
        match=rf"kd.schedule.type {kind} changes .* from 1 to 3, but the outputs of "
        rf"teachers.films.wire {wire['type']}.* only at some temperatures: use the wire hidden or "
        "dense, or kd.schedule.type constant",
    ):
        check(parse(language(root, tmp_path, {"type": kind}, wire)))
    check(parse(language(root, tmp_path, {"type": "constant"}, wire)))


@pytest.mark.parametrize("wire", ["hidden", "dense"])
def test_exact_wires_serve_every_temperature(root: Path, tmp_path: Path, wire: str) -> None:
    check(parse(language(root, tmp_path, {"type": "cosine"}, {"type": wire})))


def test_text_of_the_student_has_no_labels(root: Path, tmp_path: Path) -> None:
    data = language_experiment(root / "language")["data"]
    data |= {"columns": {"prompt": "prompt", "completion": "completion", "domain": "domain",
                         "split": "split"}, "packing": False}  # fmt: skip
    changes: dict[str, Any] = {"data": data, "sampling": {"type": "on_policy"}}

    def raw(kind: str) -> Any:
        return language(root, tmp_path, {"type": kind}, {"type": "hidden"}, **changes)

    with pytest.raises(ConfigError, match=r"loss_ratio follows .*on_policy the labels are tok"):
        check(parse(raw("loss_ratio")))
    check(parse(raw("cosine")))


@pytest.mark.parametrize("kind", ["constant", "cosine", "loss_ratio", "convergence", "auto"])
def test_the_interval_is_part_of_a_run_whose_temperature_follows_it(
    root: Path, tmp_path: Path, kind: str
) -> None:
    raw = classifier(root, tmp_path, {"type": kind})
    first = check(parse(raw))
    run = RunFolder(tmp_path / "run")
    run.claim(first.experiment, first.identity)
    run.close()
    other = raw | {"trainer": raw["trainer"] | {"log_every": 5, "checkpoint_every": 7}}
    if kind in ("constant", "cosine"):
        assert check(parse(other)).is_resuming
        return
    with pytest.raises(RunFolderError, match=r"trainer.log_every is 5 \(10 in the folder\)"):
        check(parse(other))


def test_a_constant_temperature_is_the_experiment_of_older_versions(
    root: Path, tmp_path: Path
) -> None:
    raw = classifier(root, tmp_path, {"type": "constant"})
    found = identity(parse(raw), "data")
    raw["kd"].pop("schedule")
    assert identity(parse(raw), "data") == found
    assert not any("schedule" in key or "log_every" in key for key in found)


# ---- sweeps ------------------------------------------------------------------------------------


def swept(raw: dict[str, Any], space: dict[str, Any], **search: Any) -> Any:
    changed = raw | {"search": {"space": space, **search}, "cluster": {"num_cpus": 2}}
    return check(parse(changed), command="sweep")


def test_a_sweep_over_schedules_keeps_the_range_where_a_type_has_one(
    root: Path, tmp_path: Path
) -> None:
    kinds = ["constant", "cosine", "loss_ratio", "convergence", "auto"]
    raw = classifier(root, tmp_path, {"type": "cosine", "low": 1.0})
    plan = swept(raw, {"kd.schedule.type": GRID | {"values": kinds}})
    assert plan.identity["trainer.log_every"] == 10  # some trials read losses
    tried = [with_values(raw_of(plan.experiment), {"kd.schedule.type": k}).kd for k in kinds]
    assert [kd.schedule.type for kd in tried] == kinds
    assert [kd.schedule.range_of(4) for kd in tried] == [(4, 4), *[(1, 6)] * 4]
    bare = {k: v for k, v in raw_of(plan.experiment).items() if k != "kd"}
    assert with_values(bare, {"kd.schedule.type": "auto"}).kd.schedule.type == "auto"


@pytest.mark.parametrize(("schedule", "expected"), [({}, False), ({"type": "auto"}, True)])
def test_a_sweep_over_sections_without_schedules_is_that_of_older_versions(
    root: Path, tmp_path: Path, schedule: dict[str, str], expected: bool
) -> None:
    raw = classifier(root, tmp_path, {"type": "constant"})
    section = {"temperature": 2, "alpha": 0.5} | ({"schedule": schedule} if schedule else {})
    raw |= {"search": {"space": {"kd": GRID | {"values": [section]}}}}
    assert ("trainer.log_every" in identity(parse(raw), "data")) == expected


def test_a_sweep_is_refused_where_a_trial_would_be(root: Path, tmp_path: Path) -> None:
    raw = classifier(root, tmp_path, {"type": "cosine", "low": 2.5})
    with pytest.raises(
        ConfigError, match=r"kd.schedule.low 2.5 must be below kd.schedule.high 1.5"
    ):
        swept(raw, {"kd.temperature": GRID | {"values": [1.0, 4.0]}})
    raw["trainer"] = raw["trainer"] | {"log_every": 60}
    with pytest.raises(ConfigError, match=r"auto reads .*at most 55"):
        swept(raw, {"kd.schedule.type": GRID | {"values": ["cosine", "auto"]}})
    with pytest.raises(ConfigError, match=r"auto reads .*at most 29"):  # half the steps
        space = {"kd.schedule.type": GRID | {"values": ["auto"]},
                 "trainer.batch_size": GRID | {"values": [16, 32]}}  # fmt: skip
        swept(raw | {"trainer": raw["trainer"] | {"log_every": 50}}, space)
    topk = {"type": "topk", "k": 8, "temperatures": [1, 2, 3]}
    spoken = language(root, tmp_path, {"type": "constant"}, topk)
    with pytest.raises(ConfigError, match=r"teachers.films.wire topk.* only at some temperatures"):
        swept(spoken, {"kd.schedule.type": GRID})


def test_a_population_cannot_change_its_schedule(root: Path, tmp_path: Path) -> None:
    raw = classifier(root, tmp_path, {"type": "constant"})
    search = {"sampler": {"type": "random"}, "scheduler": {"type": "pbt"}, "num_trials": 2}
    choice = {"kd.schedule.type": {"type": "choice", "values": ["cosine", "auto"]}}
    with pytest.raises(ConfigError, match=r"pbt .*losses that kd.schedule follows"):
        swept(raw, choice, **search)
