"""Ctrl-C: what is kept, how to resume, and no error."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest
import typer

from distill.cli.output import command_line, errors
from distill.driver.pipeline import _stopped
from distill.errors import ConfigError, Interrupted
from distill.run_folder import RunFolder
from distill.training.checkpoints import resumed_step, rewind_log
from distill.training.interrupt import StopOnSignal


def checkpoint(fit: Path, *steps: int) -> None:
    for step in steps:
        (fit / f"checkpoints/step-{step:08d}").mkdir(parents=True)


def test_a_stopped_run_names_each_fit_and_the_step_of_its_checkpoint(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    assert run.kept() == []
    run.fit.mkdir(parents=True)
    (run.fit / "metrics.jsonl").write_text("")
    (run.fit / "checkpoints/building-00000100").mkdir(parents=True)
    assert run.kept() == [], "a checkpoint that is not complete is none"
    checkpoint(run.fit, 40, 120)
    checkpoint(run.baselines / "alone", 7)
    checkpoint(run.experts / "films", 540)
    (run.experts / "films/done.json").write_text("{}")
    assert run.kept() == ["films (trained)", "alone (step 7)", "student (step 120)"]


def test_a_stopped_sweep_counts_its_trials(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    for number, status in enumerate(["finished", "stopped", "finished", "running", "running"]):
        folder = run.root / f"trials/trial-{number:03d}"
        folder.mkdir(parents=True)
        (folder / "trial.json").write_text(json.dumps({"status": status}))
    checkpoint(run.root / "trials/trial-003/fit", 20)
    assert run.kept() == [
        "2 trials (finished)",
        "1 trial (stopped)",
        "1 trial (with a checkpoint)",
    ]


def test_a_run_stopped_before_its_first_checkpoint_claims_none() -> None:
    assert "keeps" not in _stopped("runs/mine", [], at_once=False)
    assert "before the first checkpoint" in _stopped("runs/mine", [], at_once=False)
    message = _stopped("runs/mine", ["films (trained)", "student (step 120)"], at_once=True)
    assert message == "stopped at once; runs/mine keeps films (trained), student (step 120)"


def test_resuming_starts_at_the_newest_checkpoint_without_what_was_logged_after_it(
    tmp_path: Path,
) -> None:
    assert resumed_step(tmp_path) == 0
    checkpoint(tmp_path, 80, 120)
    assert resumed_step(tmp_path) == 120
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(f'{{"step": {step}}}\n' for step in (110, 120, 130)))
    rewind_log(tmp_path, 120)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [110, 120]


def test_the_command_that_resumes_can_be_pasted_into_a_shell() -> None:
    line = command_line("train", Path("my runs/mine.yaml"), ["kd.alpha=0.9", "a.b=[1, 2]"], None)
    assert line == "distill train 'my runs/mine.yaml' kd.alpha=0.9 'a.b=[1, 2]'"
    joined = command_line("sweep", Path("mine.yaml"), None, "auto")
    assert joined == "distill sweep mine.yaml --address auto"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Interrupted("stopped; runs/mine keeps student (step 3)"), "keeps student (step 3)"),
        (KeyboardInterrupt(), "stopped before anything started"),
    ],
)
def test_ctrl_c_is_no_error_and_prints_how_to_resume(
    error: BaseException, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, errors(True, "distill train mine.yaml"):
        raise error
    assert ended.value.exit_code == 130
    printed = capsys.readouterr()
    assert "error" not in printed.err + printed.out
    assert printed.err.splitlines()[-1] == "resume with: distill train mine.yaml"
    (last,) = printed.out.splitlines()
    assert message in json.loads(last)["stopped"]
    assert json.loads(last)["resume"] == "distill train mine.yaml"


def test_bad_input_stays_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, errors(True, "distill train mine.yaml"):
        raise ConfigError("kd.alpha is 3")
    assert ended.value.exit_code == 2
    printed = capsys.readouterr()
    assert printed.err == "error: kd.alpha is 3\n"
    assert json.loads(printed.out) == {"error": "kd.alpha is 3", "kind": "ConfigError"}


def test_the_first_signal_is_acknowledged_and_the_second_interrupts() -> None:
    stopped: list[str] = []
    announced = threading.Event()
    with StopOnSignal(lambda: stopped.append("stop"), announced.set) as interrupt:
        interrupt.check()
        os.kill(os.getpid(), signal.SIGINT)
        assert announced.wait(60)
        assert stopped == ["stop"] and interrupt.is_set()
        with pytest.raises(Interrupted):
            interrupt.check()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert stopped == ["stop"]
