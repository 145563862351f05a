"""What a sweep leaves, and what distill frontier and distill report say."""

from __future__ import annotations

import csv
import json
import re

import matplotlib.image
import pytest
from typer.testing import CliRunner

from distill.cli import app
from distill.config.search import Goal, default_goals
from distill.report.frontier import winners_markdown, write_frontier
from distill.search.trials import Trial, frontier

GOALS = (Goal("eval.accuracy", "max"), Goal("student.size_mb", "min"))


@pytest.fixture(scope="module")
def written(record, tmp_path_factory):
    folder = tmp_path_factory.mktemp("frontier")
    paths = write_frontier(
        *(folder, record.trials, record.goals, record.searched, record.rows),
        teacher_accuracy=record.teacher_accuracy,
    )
    assert all(path.parent == folder and path.is_file() for path in paths)
    return {path.name: path for path in paths}


def test_the_csv_holds_every_trial_unrounded(record, written):
    rows = list(csv.DictReader(written["frontier.csv"].open()))
    assert len(rows) == 30
    for trial, row in zip(record.trials, rows, strict=True):
        kept = {k: float(row[f"metrics.{k}"]) for k in trial.metrics}
        assert kept == trial.metrics
        assert (row["trial"], row["status"], row["reason"]) == (
            *(trial.name, trial.status, trial.reason),
        )
        assert row["params.objective.type"] == trial.values["objective.type"]
    on = {row["trial"] for row in rows if row["on_frontier"] == "true"}
    assert on == {t.name for t in frontier(record.trials, record.goals)}


def test_pictures_are_1200_pixels_wide_and_not_empty(written):
    for name in ("frontier.png", "heat_map.png"):
        pixels = matplotlib.image.imread(written[name])
        assert pixels.shape[1] == 1200
        assert pixels.std() > 0.05


def test_no_trial_under_a_limit_beats_its_winner(record, written):
    lines = written["winners.md"].read_text().splitlines()[2:]
    assert lines
    by_name = {t.name: t for t in record.trials}
    for line in lines:
        limit, name = [cell.strip() for cell in line.strip("|").split("|")][:2]
        allowed = [
            t.metrics["eval.accuracy"]
            for t in record.trials
            if t.status == "finished" and t.metrics["student.size_mb"] <= float(limit.split()[0])
        ]
        assert by_name[name].metrics["eval.accuracy"] == max(allowed)


def test_hostile_values_stay_text(tmp_path):
    hostile = "</script><script>alert(1)</script>|x"
    metrics = {"eval.accuracy": 0.8, "student.size_mb": 1.0}
    trials = [
        Trial(name, "finished", {"objective.type": value}, metrics)
        for name, value in (("a", hostile), ("b", "jsd"))
    ]
    write_frontier(tmp_path, trials, GOALS, ["objective.type"])
    page = (tmp_path / "frontier.html").read_text()
    assert "<script>alert(1)" not in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=[\"']?(https?:)?//", page)
    assert "\\|x |" in winners_markdown(trials, GOALS, ["objective.type"])


def test_little_known_trials_leave_what_they_can(tmp_path):
    trials = [Trial("a", "failed", {}, {}, "why"), Trial("b", "finished", {}, {"eval.accuracy": 1})]
    names = [path.name for path in write_frontier(tmp_path, trials, GOALS, [])]
    assert names == ["frontier.csv", "frontier.png", "frontier.html", "importance.md"]


def run(uri, *arguments):
    result = CliRunner().invoke(app, [*arguments, "--tracking-uri", uri, "--json"])
    return result.exit_code, json.loads(result.stdout.splitlines()[-1]), result.stdout


def test_frontier_names_and_copies_the_best_under_limits(store_uri, record, students, tmp_path):
    allowed = [
        t
        for t in record.trials
        if t.status == "finished"
        and t.metrics["student.size_mb"] <= 2
        and t.metrics["student.latency_ms"] <= 0.7
    ]
    best = max(allowed, key=lambda t: t.metrics["eval.accuracy"])
    source = students / best.name / "student"
    source.mkdir(parents=True)
    for name in ("model.safetensors", "config.json"):
        (source / name).write_text(best.name)
    limits = ["--max-mb", "2", "--max-latency-ms", "0.7"]
    code, payloads, text = run(
        store_uri, "frontier", "sentiment", *limits, "--out", str(tmp_path / "s")
    )
    assert (code, payloads["best"]) == (0, best.name)
    assert f"★ {best.name}" in text
    assert (tmp_path / "s" / "model.safetensors").read_text() == best.name
    assert max(t["metrics"]["student.size_mb"] for t in payloads["frontier"]) <= 2


def test_frontier_refuses_with_one_message(store_uri, demo, tmp_path):
    cases = {
        ("--max-mb", "0.01"): "no student of sentiment has size (MB) ≤ 0.01: the smallest is",
        ("--max-mb", "9", "--out", str(tmp_path / "s")): "student is gone",
    }
    for options, message in cases.items():
        code, payloads, _ = run(store_uri, "frontier", demo, *options)
        assert code == 2
        assert message in payloads["error"]
    assert not list(tmp_path.iterdir())


def test_report_writes_a_page_and_the_files(store_uri, demo, tmp_path):
    code, payloads, _ = run(store_uri, "report", demo, "--out", str(tmp_path / "r"))
    assert code == 0
    assert payloads["report"] == str(tmp_path / "r" / "report.html")
    names = {path.name for path in (tmp_path / "r").iterdir()}
    expected = {"report.html", "frontier.csv", "frontier.png", "frontier.html", "winners.md"}
    assert names == expected | {"heat_map.png", "importance.md"}
    code, payloads, _ = run(store_uri, "report", "sentimental", "--out", str(tmp_path / "x"))
    assert (code, payloads["kind"]) == (2, "RecordError")


def test_the_lower_perplexity_wins_and_is_no_percentage():
    sizes = {"one": (0.2, 40.0), "two": (0.2, 30.0), "three": (0.9, 20.5), "four": (2.0, 21.0)}
    trials = [
        Trial(name, "finished", {}, {"student.size_mb": size, "eval.perplexity": perplexity})
        for name, (size, perplexity) in sizes.items()
    ]
    goals = default_goals(Goal("eval.perplexity", "min"))
    assert [trial.name for trial in frontier(trials, goals)] == ["two", "three"]
    _, _, *lines = winners_markdown(trials, goals, []).splitlines()
    assert lines[0] == "| 0.25 MB | two | 30.0 | 0.200 |"
    assert lines[-1] == "| 2.5 MB | three | 20.5 | 0.900 |"
