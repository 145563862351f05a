"""Attacks find what there is to find, count every query, and never change behaviour."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from distill.evaluation.attacks import (
    METHODS,
    Attacked,
    CodeSpace,
    Method,
    TextSpace,
    attack,
    curve,
)
from distill.evaluation.attacks.spaces import WORD
from distill.evaluation.classifiers import probs_of
from distill.evaluation.samples import Sample
from distill.transform import Code
from tests.evaluation.toy_classifiers import Constant, Words

CODE = """\
int total(int *numbers, int count) {
    int sum = 0;
    for (int i = 0; i < count; i++) {
        sum += numbers[i];
    }
    return sum;
}
"""
SAMPLES = [Sample(0, 1, text=CODE), Sample(1, 1, text=CODE.replace("sum", "gadget"))]
FLAT = {"numbers": 1.0, "count": 0.4, "sum": 0.2, "gadget": 0.2, "total": 0.1}
"""The logit of class 1 is the sum of the names: without ``numbers`` the class still holds."""


def run(
    method: Method,
    model: Words | Constant,
    samples: Sequence[Sample] = SAMPLES,
    budget: int = 60,
    seed: int = 0,
) -> list[Attacked]:
    spaces = [
        CodeSpace(sample.text, "c", ("alpha", "beta", "gamma", "delta")) for sample in samples
    ]

    def ask(asked: Sequence[tuple[int, str]]) -> np.ndarray:
        return probs_of(model, [replace(samples[i], text=text) for i, text in asked])

    labels = [sample.label for sample in samples]
    return attack(method, spaces, labels, probs_of(model, samples), ask, budget, seed)


@pytest.mark.parametrize("method", ["random", "greedy", "combined"])
def test_a_model_that_reads_names_falls_to_new_names(method: Method) -> None:
    model = Words({name: weight - 0.25 for name, weight in FLAT.items()} | {"alpha": -3.0})
    for found in run(method, model):
        assert found.is_flipped and found.predicted == 0
        assert Code.parse(found.text, "c").is_valid
        text = Sample(0, 1, text=found.text)
        assert probs_of(model, [text])[0].argmax() == 0  # the text itself is the proof
        assert 1 <= found.queries <= 60


def test_a_model_that_reads_layout_falls_to_style_alone() -> None:
    model = Words({"for": 1.0, "while": -2.0, "sum": 0.1, "gadget": 0.1})
    assert all(found.is_flipped for found in run("style", model))
    assert not any(found.is_flipped for found in run("random", model))


@pytest.mark.parametrize("method", METHODS)
def test_queries_are_counted_and_never_exceed_the_budget(method: Method) -> None:
    model = Constant()
    for budget in (1, 7):
        counted = Words({"int": 5.0})  # nothing that an attack may change matters to it
        found = run(method, counted, budget=budget)
        assert len(counted.asked) == len(SAMPLES) + sum(one.queries for one in found)
        assert all(one.queries <= budget and not one.is_flipped for one in found)
        assert [one.text for one in found] == [SAMPLES[one.sample].text for one in found]
    assert not any(one.is_flipped for one in run(method, model))


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_is_the_same_attack_whatever_runs_beside_it(method: Method) -> None:
    model = Words(FLAT | {"alpha": -0.5, "beta": -0.4})
    both = run(method, model)
    assert run(method, model) == both
    (first,) = run(method, model, SAMPLES[:1])
    assert first == both[0]
    texts = []
    for seed in (0, 0, 1):
        asked = Words(FLAT)
        run(method, asked, seed=seed)
        texts.append(asked.asked)
    assert texts[0] == texts[1] != texts[2]


def test_code_without_names_to_change_still_has_styles() -> None:
    nameless = Sample(0, 1, text='int main(void) { for (;;) { puts("one"); } return 0; }\n')
    model = Words({"for": 1.0, "while": -2.0, "main": 0.1})
    assert run("random", model, [nameless]) == run("greedy", model, [nameless]) == []
    for method in ("style", "combined"):
        (found,) = run(method, model, [nameless])
        assert found.is_flipped


def test_samples_are_asked_about_together() -> None:
    model = Words({"int": 5.0})
    run("random", model, budget=20)
    assert model.num_calls <= 1 + 20  # not once for each of the two


def test_what_the_model_had_wrong_is_not_attacked() -> None:
    wrong = [replace(SAMPLES[0], label=0), SAMPLES[1]]
    found = run("greedy", Words(FLAT), wrong)
    assert [one.sample for one in found] == [1]


def test_source_that_does_not_parse_is_left_alone() -> None:
    broken = [replace(SAMPLES[0], text="int total(int *numbers {")]
    for method in METHODS:
        assert run(method, Constant(), broken) == []


def test_the_curve_counts_each_sample_from_the_query_that_flipped_it() -> None:
    ended = [
        Attacked(0, "", 2, True, 0),
        Attacked(1, "", 5, False, 1),
        Attacked(2, "", 4, True, 0),
    ]
    left = curve(ended, num_correct=4, num=5, budget=5)
    assert left.tolist() == [0.8, 0.8, 0.6, 0.6, 0.4, 0.4]


SENTENCES = " ".join(f"The film number{i} was a good story with bad music." for i in "abcdefgh")
"""72 words of three letters or more: 10 of them are 15 %."""


def texts_of_an_attack(method: Method, text: str, budget: int = 60) -> list[str]:
    """Those that it queries of a model for which every new text is a little less certain, so that
    the search goes on from it."""
    queried: list[str] = []

    def ask(texts: Sequence[tuple[int, str]]) -> np.ndarray:
        queried.extend(text for _, text in texts)
        return np.array([[0.3, 0.7 - 1e-4 * (len(queried) + i)] for i in range(len(texts))])

    attack(method, [TextSpace(text)], [1], np.array([[0.1, 0.9]]), ask, budget, seed=0)
    return queried


@pytest.mark.parametrize("method", ["random", "greedy"])
def test_a_search_for_words_replaces_at_most_15_percent_of_them(method: Method) -> None:
    words = Counter(WORD.findall(SENTENCES))
    num_replaced = []
    for text in texts_of_an_attack(method, SENTENCES):
        lost = words - Counter(WORD.findall(text))
        assert len(lost) == 1 or lost.total() <= 10, text
        num_replaced.append(lost.total())
    assert len(num_replaced) > 20 and max(num_replaced) == 10  # the search goes up to the limit


def test_style_replaces_words_by_each_of_its_two_ways_once() -> None:
    """15 % of 48 words with four letters and of 24 in the list of synonyms: mean 10.8 with a
    standard deviation of 3.0. Taken again and again they would replace most words."""
    words = Counter(word.lower() for word in WORD.findall(SENTENCES))
    num_replaced = [
        (words - Counter(word.lower() for word in WORD.findall(text))).total()
        for text in texts_of_an_attack("style", SENTENCES, budget=600)
    ]
    assert 5 <= max(num_replaced) <= 10.8 + 4 * 3.0


def test_words_of_text_are_replaced_by_near_ones() -> None:
    space = TextSpace("The good film was good, and the cat slept.")
    assert "good" in space.parts and len(set(space.parts)) == len(space.parts)
    words = space.substitutes("good", 3, random.Random(0))
    assert words and "good" not in words
    changed = space.replaced({"good": words[0]})
    assert changed == f"The {words[0]} film was {words[0]}, and the cat slept."
