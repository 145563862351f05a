"""The reference has every key, metric and command, and its generated pages are current."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from distill.config import Experiment
from distill.config.search import TRIAL_METRICS
from distill.evaluation.assess import Task
from distill.evaluation.names import metric_names
from distill.evaluation.settings import Evaluation
from distill.report.names import MEANINGS
from docs.site.generate import pages, path_below, walk
from tests.docs.pages import ROOT
from tests.training.test_loop import run

REFERENCE = ROOT / "docs/reference"
PAGES = pages()
METRICS = [
    metric
    for line in (REFERENCE / "metrics.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| `")
    for metric in re.findall(r"`([^`\s]+)`", line.split(" | ")[0])
]
FAMILIES = (
    *("eval", "test", "student", "teacher", "fidelity", "robustness", "interval", "sweep", "time"),
    *("stream", "sampling", "router", "balance", "kd", "ce", "train", "meta"),
)


@pytest.mark.parametrize("name", PAGES)
def test_generated_pages_are_current(name: str):
    committed = (REFERENCE / name).read_text(encoding="utf-8")
    assert committed == PAGES[name], "run: make reference"


@pytest.mark.parametrize(
    ("root", "name"), [(Experiment, "configuration.md"), (Evaluation, "evaluation.md")]
)
def test_every_key_is_in_the_reference(root: type, name: str):
    """A key is listed, or is below one that says where its keys are listed."""
    page = PAGES[name]
    listed = set(re.findall(r"\*\*`([^`]+)`\*\*", page)) | set(
        re.findall(r"^#+ `(.+)`$", page, re.M)
    )
    linked = set(re.findall(r"\*\*`([^`]+)`\*\* — [^\n]*\n(?:\n    [^\n]*\n)*\n    As \[", page))
    keys = [key for _, _, key in walk("", root)]
    below = tuple(path_below(key) + "." for key in keys if key.path in linked)
    assert len(keys) > 20
    assert [k.path for k in keys if k.path not in listed and not k.path.startswith(below)] == []


@pytest.mark.parametrize(
    "key",
    [
        *("data.labels", "data.splits.transfer", "data.on_empty_text", "student.tokenizer"),
        *("search.space", "teachers[].wire.temperatures", "experts.router.serving"),
        *("baselines[].name", "kd.alpha"),
    ],
)
def test_known_keys_have_an_anchor(key: str):
    anchor = key.replace("[]", "").replace(".", "-")
    assert f'<a id="{anchor}"></a>' in PAGES["configuration.md"]


@pytest.mark.parametrize("variant", ["objective-forward_kl", "teachers-wire-topk", "sampling-skd"])
def test_each_type_of_a_union_has_an_anchor(variant: str):
    assert f'<a id="{variant}"></a>' in PAGES["configuration.md"]


def test_a_key_shows_type_constraint_default_and_meaning():
    found = re.search(
        r"\*\*`data.max_unlearnable`\*\* — (.*)\n\n    (.*)", PAGES["configuration.md"]
    )
    assert found is not None
    assert found[1] == "number; ≥ 0 and ≤ 1; default `0.01`"
    assert "maximum share of rows without" in found[2]


def test_every_command_and_option_is_in_the_reference():
    from distill.cli import app

    page = PAGES["commands.md"]
    names = [c.callback.__name__ for c in app.registered_commands if c.callback]
    assert re.findall(r"^## distill (\S+)", page, re.M) == names
    assert '<a id="distill-evaluate-fail-if"></a>`--fail-if` TEXT' in page
    assert "`--json`" in page and "as-json`" not in page.replace('as-json"', "")


def test_metrics_of_an_evaluation_are_in_the_reference():
    task = Task(
        samples=(), label_names=("label-a",), domain_names=("domain-a",), kind="c", sd_D=None
    )
    undocumented = {m for m in metric_names(task, Evaluation(), True) if not is_documented(m)}
    assert undocumented == set()


def test_metrics_of_reports_and_sweeps_are_in_the_reference():
    assert [m for m in (*MEANINGS, *TRIAL_METRICS) if not is_documented(m)] == []


def test_metrics_of_a_fit_are_in_the_reference(tmp_path: Path):
    _, _, lines = run(tmp_path, num_steps=2)
    names = {name for _, metrics in lines for name in metrics}
    assert {"loss", "grad_norm", "teacher.a.kl"} <= names
    assert sorted(name for name in names if not is_documented(name)) == []


def test_metric_names_in_the_code_are_in_the_reference():
    """String literals that look like a metric and are no key of the configuration."""
    keys = {path for _, _, key in walk("", Experiment) for path in (key.path, f"{key.path}.type")}
    no_metric = re.compile(r".*(\.png|\.json|_)")  # a file; what a name begins with
    found = {m for m in _literals() if m not in keys and not no_metric.fullmatch(m)}
    assert len(found) > 50
    assert sorted(m for m in found if not is_documented(m)) == []


def is_documented(name: str) -> bool:
    """``name`` may have ``<x>`` where the code fills something in, and so may the reference."""
    name = name.removeprefix("teacher.") if name.startswith(TEACHERS) else name
    own = _pattern(name)
    return any(
        own.fullmatch(m) or _pattern(m).fullmatch(name) or m.startswith(f"{name}.") for m in METRICS
    )


TEACHERS = ("teacher.test.", "teacher.robustness.", "teacher.interval.")


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"<\w+>", r"[^ ]+", re.escape(name)))


def _literals() -> Iterator[str]:
    looks = re.compile(rf"({'|'.join(FAMILIES)})(\.(\w|<x>)+)+")
    for path in sorted(Path(ROOT / "distill").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "<x>" for v in node.values]
                text = "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            else:
                continue
            if looks.fullmatch(text):
                yield text
