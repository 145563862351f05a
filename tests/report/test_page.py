"""The page: everything is there, nothing is fetched, and no text becomes markup."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import yaml

from distill.config.search import Goal
from distill.evaluation.rows import Row
from distill.report.axes import axis
from distill.report.markup import Markup, tag
from distill.report.page import configuration_yaml, page
from distill.search.trials import Trial, frontier
from distill.tracking.read import Dataset, Record

HOSTILE = "<script>alert(1)</script>\"'&amp;"


class Elements(HTMLParser):
    """Names of all elements with their attributes, and the text outside script and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.texts.append(data)


@pytest.fixture(scope="module")
def text(record: Record) -> str:
    return page(record)


def test_every_trial_reason_and_section_is_there(record, text):
    elements = Elements(text)
    for trial in record.trials:
        of_trial = [name for name, a in elements.found if a.get("data-trial") == trial.name]
        assert "article" in of_trial
        assert ("g" in of_trial) == (trial.status != "failed")
        assert html.escape(trial.reason) in text
    titles = {a["id"] for name, a in elements.found if name == "section"}
    assert titles == {
        *("frontier", "winners", "trials", "comparison", "temperature-and-alpha", "importance"),
        *("learning-curves", "domains", "failures", "environment", "metrics"),
    }
    assert "9a" * 32 in text  # the fingerprint of the data
    links = {a["href"] for name, a in elements.found if name == "a"}
    assert links == {f"#{title}" for title in titles}


def test_nothing_is_fetched_and_one_script_may_run(text):
    elements = Elements(text)
    addresses = [a.get(k) for _, a in elements.found for k in ("src", "href") if a.get(k)]
    assert all(str(address).startswith(("#", "data:")) for address in addresses)
    assert not re.search(r"url\(|@import|https?:(?!//www\.w3\.org)", text)
    policy = next(
        str(a["content"])
        for _, a in elements.found
        if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for name in ("script", "style"):
        (inner,) = re.findall(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy


def test_no_text_becomes_markup(record, text):
    trials = [
        replace(t, reason=HOSTILE if t.reason else "", values=t.values | {HOSTILE: HOSTILE})
        for t in record.trials
    ]
    hostile = replace(
        record,
        trials=trials,
        experiment=HOSTILE,
        searched=(*record.searched, HOSTILE),
        rows=[Row(HOSTILE, r.role, {f"test.accuracy.{HOSTILE}": 0.5}) for r in record.rows],
        params={HOSTILE: HOSTILE},
        environment={HOSTILE: HOSTILE},
        datasets=[Dataset(HOSTILE, HOSTILE, HOSTILE)],
        notes=[HOSTILE],
    )
    shown = page(hostile)
    elements = Elements(shown)
    assert [name for name, _ in elements.found].count("script") == 1
    assert {name for name, _ in elements.found} <= {name for name, _ in Elements(text).found}
    assert f"{HOSTILE}: distill report" in "".join(elements.texts)


def test_a_configuration_is_yaml_of_the_searched_keys():
    values = {"kd.temperature": 4.0, "kd.alpha": 0.5, "objective.type": "jsd: {"}
    text = configuration_yaml(Trial("t", "finished", dict(values), {}), {"student.layers": 2})
    assert yaml.safe_load(text) == {
        "kd": {"temperature": 4.0, "alpha": 0.5},
        "objective": {"type": "jsd: {"},
    }
    assert "# student: layers 2" in text


def test_an_experiment_of_one_bare_trial_has_a_page():
    trial = Trial("t", "finished", {}, {"eval.accuracy": 0.8})
    record = Record(
        is_sweep=False,
        is_partial=True,
        run_id="r",
        started="now",
        goals=(Goal("eval.accuracy", "max"), Goal("student.size_mb", "min")),
        searched=(),
        trials=[trial],
        experiment="bare",
        uri="sqlite:///x",
    )
    assert frontier([trial], record.goals) == []
    shown = page(record)
    assert "80.0 %" in shown
    assert "still running when this report was written" in shown


def test_markup_escapes_all_but_markup():
    assert tag("p", "<b>", Markup("<i>"), title='"') == '<p title="&quot;">&lt;b&gt;<i></p>'


@pytest.mark.parametrize("values", [[0.25, 10], [0.8, 0.81], [5, 5], [0, 0], [1e-3, 2e4]])
@pytest.mark.parametrize("is_log", [True, False])
def test_axes_hold_their_values_and_some_ticks(values, is_log):
    one = axis(values, 50, 700, needs_log=is_log)
    assert all(50 <= one(value) <= 700 for value in values)
    ticks = one.ticks(7)
    assert 2 <= len(ticks) <= 9
    assert all(one.low <= tick <= one.high for tick in ticks)
