"""Tails of growing files, and progress that is legible without a terminal."""

import io
import json
import re

import pytest

from distill.report.progress import Progress, format_metrics
from distill.training.log import Tail


def test_a_tail_reads_each_line_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert tail.read() == []  # not there yet
    path.write_text('{"step": 1}\n{"step": 2}\n')
    assert tail.read() == [{"step": 1}, {"step": 2}]
    assert tail.read() == []


def test_a_half_written_line_waits_for_its_end(tmp_path):
    path = tmp_path / "metrics.jsonl"
    line = json.dumps({"step": 1, "name": "Köln"}, ensure_ascii=False).encode() + b"\n"
    tail, records = Tail(path), []
    with path.open("ab", buffering=0) as file:
        for byte in line + line:  # even in the middle of a character
            file.write(bytes([byte]))
            records += tail.read()
    assert records == [{"step": 1, "name": "Köln"}] * 2
    assert tail.num_broken == 0


def test_torn_lines_are_counted_and_a_file_written_anew_is_read_anew(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st{"step": 2}\n{"step": 3}\n')
    tail = Tail(path)
    assert tail.read() == [{"step": 1}, {"step": 3}]
    assert tail.num_broken == 1
    path.write_text('{"step": 9}\n')
    assert tail.read() == [{"step": 9}]


def test_without_a_terminal_progress_is_a_few_plain_lines(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    stream = io.StringIO()
    with Progress(stream, every_s=60) as progress:
        for step in range(1, 1001):
            progress.update("student", step, 1000, {"loss": 0.25, "lr": 0.1})
        progress.update("student", metrics={"eval.accuracy": 0.8125})
        progress.say("done")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3  # the first, the last, and what was said
    assert lines[0].startswith("student 1/1000 (0%) · loss 0.250 · ")
    assert lines[1].startswith("student 1000/1000 (100%) · loss 0.250 · ")
    assert "\x1b" not in stream.getvalue()


def test_the_time_left_does_not_count_the_start_of_the_workers(monkeypatch):
    """A minute until the first steps, then one step a second; resumed at step 40."""
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    stream = io.StringIO()
    progress = Progress(stream, every_s=0)
    for now, done in ((0.0, 40), (60.0, 50), (70.0, 60), (90.0, 80)):
        clock[0] = now
        progress.update("student", done, 160)
    assert [line.split(" · ")[1:] for line in stream.getvalue().splitlines()] == [
        *(["0:00"], ["1:00"]),
        *(["1:10", "1:40 left"], ["1:30", "1:20 left"]),
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_bars_are_live(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    with Progress(stream) as progress:
        progress.update("expert [a]", 3, 10, {"loss": 0.5})
        progress.update("student", total=20)
        progress.update("student", 20, metrics={"eval.accuracy": 0.8125, "loss": 0.3})
    shown = stream.getvalue()
    assert "expert [a]" in shown  # no markup
    assert "3/10" in shown
    assert "loss 0.500" in shown
    # What is done is a plain line, of the last evaluation and its split.
    assert "student 20/20 (100%) · validation accuracy 81.2 % · 0:00" in shown


def test_a_bar_shows_label_count_and_split_whole_in_80_columns(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    with Progress(stream) as progress:
        metrics = {"loss": 0.15, "eval.accuracy": 0.9521, "eval.f1": 0.95}
        progress.update("student-without-teachers", 12, 408, metrics)
    lines = [line for line in plain(stream.getvalue()) if "student" in line]
    assert max(map(len, lines)) <= 80
    assert all(line.startswith("student-without-teachers ") for line in lines)
    assert " 12/408 validation accuracy 95.2 % " in lines[-1]


def test_a_label_that_is_done_leaves_one_line_and_no_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    with Progress(stream) as progress:
        progress.update("student", 20, 20, {"eval.accuracy": 0.5})
        progress.update("student", 20, metrics={"eval.accuracy": 0.75})
        progress.say("evaluating")
    lines = [x.strip() for x in plain(stream.getvalue()) if x.strip()]
    assert [x.split(" · ")[0] for x in lines] == ["student 20/20 (100%)", "evaluating"]


def plain(text: str) -> list[str]:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n").splitlines()


METRICS = {"loss": 0.15, "eval.accuracy": 0.8125, "eval.f1": 0.8}


@pytest.mark.parametrize(
    ("room", "text"),
    [
        (None, "loss 0.150  validation accuracy 81.2 %, F1 80.0 %"),
        (49, "loss 0.150  validation accuracy 81.2 %, F1 80.0 %"),
        (48, "loss 0.150  validation accuracy 81.2 %"),
        (37, "validation accuracy 81.2 %"),
        (25, "loss 0.150"),
        (9, ""),
    ],
)
def test_metrics_are_what_there_is_room_for(room, text):
    assert format_metrics(METRICS, room) == text


def test_of_language_models_the_perplexity_comes_first():
    metrics = {"eval.accuracy": 0.45, "eval.perplexity": 9.8}
    assert format_metrics(metrics) == "validation perplexity 9.80, next-token accuracy 45.0 %"
