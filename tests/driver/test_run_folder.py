"""Resuming looks at what the data holds, not at when its file was written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.config import parse
from distill.driver.checks.check import check
from distill.errors import RunFolderError
from distill.run_folder import RunFolder, identity
from distill.tasks.plan import Plan
from tests.toys import toy_experiment
from tests.toys_language import language_experiment


def classifier(root: Path) -> dict[str, Any]:
    return toy_experiment(root, aggregation={"type": "oracle"})


def plan_of(raw: dict[str, Any]) -> Plan:
    return check(parse(raw))


def begun(raw: dict[str, Any]) -> Path:
    """The data's file, of a run that was interrupted."""
    plan = plan_of(raw)
    run = RunFolder(plan.experiment.output)
    run.claim(plan.experiment, plan.identity)
    run.close()
    return Path(raw["data"]["path"])


def append_a_row(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), path)


@pytest.mark.parametrize("experiment", [classifier, language_experiment])
def test_a_file_that_was_only_touched_resumes(tmp_path: Path, experiment: Any) -> None:
    raw = experiment(tmp_path)
    path = begun(raw)
    later = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(later, later))
    assert plan_of(raw).is_resuming
    pq.write_table(pq.read_table(path), path, compression="none")  # the same rows in other bytes
    assert plan_of(raw).is_resuming


@pytest.mark.parametrize(
    ("experiment", "what"),
    [(classifier, "the rows"), (language_experiment, "the rows or the tokenizer")],
)
def test_rows_that_were_appended_are_refused_and_nothing_is_lost(
    tmp_path: Path, experiment: Any, what: str
) -> None:
    raw = experiment(tmp_path)
    path = begun(raw)
    claimed = (tmp_path / "run/experiment.json").read_bytes()
    earlier = path.read_bytes()
    append_a_row(path)
    with pytest.raises(RunFolderError) as refused:
        plan_of(raw)
    message = str(refused.value)
    assert f"was started with different data: {what} changed since (data.fingerprint is " in message
    assert "restore the data, at any data.path: nothing in the folder is lost" in message
    assert "start a new run with output=" in message
    assert "\n" not in message and "delete" not in message
    assert (tmp_path / "run/experiment.json").read_bytes() == claimed
    # Both ways out.
    assert not plan_of(raw | {"output": str(tmp_path / "new")}).is_resuming
    (tmp_path / "kept.parquet").write_bytes(earlier)
    restored = {**raw, "data": raw["data"] | {"path": str(tmp_path / "kept.parquet")}}
    assert plan_of(restored).is_resuming


def test_a_key_that_changes_a_language_models_blocks_is_named_itself(tmp_path: Path) -> None:
    raw = language_experiment(tmp_path)
    begun(raw)
    raw["data"] |= {"max_length": 20}
    with pytest.raises(
        RunFolderError, match=r"data.max_length is 20 \(24 in the folder\)\. Start a"
    ):
        plan_of(raw)


def test_a_map_of_labels_belongs_to_the_experiment_whatever_the_labels_are_called() -> None:
    def of(labels: dict[str, str]) -> dict[str, Any]:
        raw = {
            "output": "out",
            "data": {"path": "rows.csv"},
            "teachers": [{"name": "a", "path": "teacher", "labels": labels}],
            "student": {"tokenizer": "teacher"},
        }
        return identity(parse(raw), "fingerprint")

    assert of({"secret": "yes", "token": "no"}) != of({"secret": "no", "token": "yes"})
