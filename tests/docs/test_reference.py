"""The reference has every key, metric and command, and its generated pages are current."""

from __future__ import annotations

import re

import pytest

from distill.config import Experiment
from distill.evaluation.settings import Evaluation
from docs.site.generate import pages, path_below, walk
from tests.docs.pages import ROOT

REFERENCE = ROOT / "docs/reference"
PAGES = pages()


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
