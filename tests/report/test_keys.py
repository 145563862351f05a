"""Which keys of the configuration a table of students shows."""

from __future__ import annotations

import io

from rich.console import Console

from distill.report.chosen import frontier_table
from distill.report.keys import common, differing
from distill.search.trials import Trial, Value


def trials(*values: dict[str, Value]) -> list[Trial]:
    metrics = {"eval.accuracy": 0.8, "student.size_mb": 1.0}
    return [Trial(f"run-{i}", "finished", one, metrics) for i, one in enumerate(values)]


def shown(*values: dict[str, Value]) -> list[str]:
    keys = dict.fromkeys(key for one in values for key in one)
    return differing(trials(*values), list(keys))


def test_keys_that_are_equal_are_left_out():
    assert shown({"kd.alpha": 0.5, "seed": 0}, {"kd.alpha": 0.9, "seed": 0}) == ["kd.alpha"]
    assert shown({"kd.alpha": 0.5}) == []


def test_keys_of_another_type_do_not_apply():
    skd: dict[str, Value] = {"sampling.type": "skd", "sampling.k": 25, "sampling.gamma": 5}
    policy: dict[str, Value] = {"sampling.type": "on_policy", "sampling.fraction": 0.5}
    assert shown(skd, policy) == ["sampling.type"]
    # … but two runs of one type differ in its keys
    assert shown(skd, {**skd, "sampling.k": 5}, policy) == ["sampling.type", "sampling.k"]


def test_a_section_that_others_lack_is_one_column():
    none: dict[str, Value] = {"sampling": "null", "kd.alpha": 1}
    some: dict[str, Value] = {"sampling.type": "skd", "sampling.k": 25, "kd.alpha": 1}
    assert shown(none, some) == ["sampling.type"]
    one: dict[str, Value] = {"teachers.0.name": "a"}
    two: dict[str, Value] = {
        **one,
        "teachers.1.name": "b",
        "teachers.1.path": "models/b",
        "teachers.1.wire.type": "dense",
    }
    assert shown(one, two) == ["teachers.1.name"]


def test_a_key_that_no_type_explains_is_shown():
    assert shown({"trainer.compile": True}, {}) == ["trainer.compile"]
    same: dict[str, Value] = {"sampling.type": "skd"}
    assert shown({**same, "sampling.k": 5}, same) == ["sampling.k"]


def test_what_is_common_is_named_once():
    some = trials({"kd.alpha": 0.9, "seed": 0}, {"kd.alpha": 0.9, "seed": 1})
    assert common(some, ["kd.alpha", "seed", "gone"]) == {"kd.alpha": 0.9}
    assert common([], ["seed"]) == {}


def test_the_table_names_each_column_once_and_fits(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    some = trials(
        *({"kd.temperature": t, "kd.alpha": 0.9, "student.size_mb": t / 7} for t in (1.5, 2.25))
    )
    metrics = ["eval.accuracy", "student.size_mb", "test.accuracy"]
    keys = ["kd.temperature", "kd.alpha", "student.size_mb"]
    table = frontier_table("title", some, some[1], metrics, keys, ["a note"])
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(table)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 80
    assert [line.split() for line in lines[1:3]] == [
        ["accuracy", "size"],
        ["student", "(validation)", "(MB)", "kd.temperature", "student.size_mb"],
    ]  # nothing was tested: no column for it
    assert lines[4].split() == ["run-0", "80.0", "%", "1.00", "1.5", "0.2143"]
    assert lines[5].split()[:2] == ["★", "run-1"]
    assert [line.strip() for line in lines[-2:]] == ["in all rows: kd.alpha 0.9", "a note"]


def test_a_single_student_has_all_its_keys():
    (one,) = trials({"kd.alpha": 0.9})
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(frontier_table("title", [one], one, ["eval.accuracy"], ["kd.alpha", "seed"]))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "kd.alpha" in text and "0.9" in text and "seed" not in text
