"""A run folder that belongs to another experiment: the message has the ``output=`` to type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distill.errors import RunFolderError
from distill.run_folder import DATA, RunFolder

OLD = {"seed": 0, "kd.alpha": 0.5, "optimizer.lr": 0.1, "kd.temperature": 2.0, DATA: "a" * 64}


def begun(folder: Path) -> RunFolder:
    folder.mkdir(parents=True)
    (folder / "experiment.json").write_text(json.dumps(OLD))
    return RunFolder(folder)


def refusal(run: RunFolder, **changes: object) -> str:
    with pytest.raises(RunFolderError) as caught:
        run.check(OLD | changes)
    return str(caught.value)


def test_other_data_and_other_settings_name_the_next_free_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = begun(tmp_path / "runs/mine")
    assert run.check(OLD)
    assert "start a new run with output=runs/mine-2." in refusal(run, **{DATA: "b" * 64})
    (tmp_path / "runs/mine-2").mkdir()
    (tmp_path / "runs/mine-3").mkdir()
    assert "new run with output=runs/mine-4, or restore" in refusal(run, seed=1)


def test_other_data_is_what_the_fingerprint_of_the_task_covers(tmp_path: Path) -> None:
    run = begun(tmp_path / "mine")
    other = {DATA: "b" * 64}
    assert "different data: the rows changed since" in refusal(run, **other)
    folder = tmp_path / "lm"
    folder.mkdir()
    known = OLD | {"task": "language_model"}
    (folder / "experiment.json").write_text(json.dumps(known))
    with pytest.raises(RunFolderError, match="data: the rows or the tokenizer changed since"):
        RunFolder(folder).check(known | other)


def test_a_folder_with_a_number_counts_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "output=mine-10, or" in refusal(begun(tmp_path / "mine-9"), seed=1)
    assert "output=try-a-2, or" in refusal(begun(tmp_path / "try-a"), seed=1)


def test_a_folder_elsewhere_is_named_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert f"output={tmp_path}/mine-2, or" in refusal(begun(tmp_path / "mine"), seed=1)


def test_the_first_keys_that_differ_are_shown(tmp_path: Path) -> None:
    run = begun(tmp_path / "mine")
    changes = {"seed": 1, "kd.alpha": 0.6, "optimizer.lr": 0.2, "kd.temperature": 3.0}
    message = refusal(run, **changes)
    assert (
        "kd.alpha is 0.6 (0.5 in the folder); kd.temperature is 3.0 (2.0 in the folder);" in message
    )
    assert "optimizer.lr is 0.2 (0.1 in the folder); and 1 more. Start" in message


def test_a_folder_with_other_files_is_refused_with_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/text.md").write_text("")
    with pytest.raises(RunFolderError, match=r"as in output=\S+/thesis-2$"):
        RunFolder(tmp_path / "thesis").check(OLD)


def test_a_key_that_one_side_lacks_is_shown_as_not_set(tmp_path: Path) -> None:
    message = refusal(begun(tmp_path / "mine"), **{"chain.links": "auto", "warm_start": "true"})
    assert "chain.links is 'auto' (not set in the folder); warm_start is true (not set" in message
