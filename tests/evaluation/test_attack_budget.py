"""Many samples at once: each gets its own answers, its own count of queries, its own end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from distill.evaluation.attacks import Attacked, attack, curve

RIGHT = np.array([0.1, 0.9])
"""Probabilities of a sample of class 1."""


class Numbered:
    """Styles alone: in round r the texts ``<name>.r.0`` … of as many as ``sizes`` has for it."""

    parts = ()

    def __init__(self, name: str, sizes: Sequence[int], num_round: int = 0) -> None:
        self.name, self.sizes, self.round = name, sizes, num_round
        self.text = name if num_round == 0 else f"{name} after {num_round}"

    def styled(self, rng: Any) -> list[str]:
        if self.round == len(self.sizes):
            return []
        return [f"{self.name}.{self.round}.{i}" for i in range(self.sizes[self.round])]

    def moved(self, text: str) -> Numbered:
        return Numbered(self.name, self.sizes, self.round + 1)


class Model:
    """Flips the texts that it is given; of the others each is less certain than the one before."""

    def __init__(self, flips: Sequence[str] = (), num_classes: int = 2, to: int = 0) -> None:
        self.flips, self.num_classes, self.to = flips, num_classes, to
        self.batches: list[list[tuple[int, str]]] = []

    def __call__(self, queries: Sequence[tuple[int, str]]) -> np.ndarray:
        probs_BC = np.full((len(queries), self.num_classes), 0.1)
        before = sum(map(len, self.batches))
        for row_C, (i, (_, text)) in zip(probs_BC, enumerate(queries), strict=True):
            row_C[self.to if text in self.flips else 1] = 0.89 - 1e-3 * (before + i)
        self.batches.append(list(queries))
        return probs_BC

    def queries(self) -> Counter[int]:
        return Counter(sample for batch in self.batches for sample, _ in batch)


def run(model: Callable, spaces: Sequence[Any], budget: int = 50, **options: Any) -> list[Attacked]:
    labels = [1] * len(spaces)
    probs_BC = np.tile(RIGHT, (len(spaces), 1))
    return attack("style", spaces, labels, probs_BC, model, budget, 0, **options)


def test_queries_count_up_to_the_first_text_that_flips() -> None:
    spaces = [Numbered("a", [4, 4]), Numbered("b", [3, 5]), Numbered("c", [2, 2])]
    model = Model(flips=["a.0.2", "a.0.3", "b.1.0", "c.1.1"])
    assert run(model, spaces) == [
        Attacked(0, "a.0.2", 3, True, 0),  # its third query
        Attacked(1, "b.1.0", 3 + 1, True, 0),
        Attacked(2, "c.1.1", 2 + 2, True, 0),
    ]
    # One batch a round, of all samples that are not ended.
    assert [[text for _, text in batch] for batch in model.batches] == [
        [*(f"a.0.{i}" for i in range(4)), *(f"b.0.{i}" for i in range(3)), "c.0.0", "c.0.1"],
        [*(f"b.1.{i}" for i in range(5)), "c.1.0", "c.1.1"],
    ]


def test_the_class_of_a_flipped_text_is_the_predicted_one() -> None:
    (found,) = run(Model(["a.0.0"], num_classes=3, to=2), [Numbered("a", [1])])
    assert (found.is_flipped, found.predicted) == (True, 2)


def test_a_sample_that_is_not_flipped_keeps_its_text_and_class() -> None:
    spaces = [Numbered("a", [2, 3]), Numbered("b", [4, 4, 4])]
    assert run(Model(), spaces) == [
        Attacked(0, "a", 5, False, 1),  # no style is left
        Attacked(1, "b", 12, False, 1),
    ]


@pytest.mark.parametrize(
    ("budget", "counts"), [(1, [1, 1]), (2, [2, 2]), (3, [3, 3]), (4, [4, 4]), (9, [5, 9])]
)
def test_a_batch_is_cut_at_the_budget_of_each_sample(budget: int, counts: list[int]) -> None:
    model = Model()
    found = run(model, [Numbered("a", [2, 3]), Numbered("b", [4, 4, 4])], budget)
    assert [one.queries for one in found] == counts
    assert [model.queries()[sample] for sample in (0, 1)] == counts


def test_a_text_behind_the_budget_is_no_success() -> None:
    (found,) = run(Model(["a.0.2"]), [Numbered("a", [4])], budget=2)
    assert found == Attacked(0, "a", 2, False, 1)


def test_each_search_is_sent_the_probabilities_of_its_own_texts() -> None:
    """In every round another text of each sample is best, from which its next round starts."""

    class Best(Numbered):
        moves: ClassVar[list[str]] = []

        def moved(self, text: str) -> Numbered:
            self.moves.append(text)
            return Best(self.name, self.sizes, self.round + 1)

    best = {"a.0.1", "b.0.3", "c.0.0", "a.1.2", "b.1.0", "c.1.1"}

    def model(queries: Sequence[tuple[int, str]]) -> np.ndarray:
        rounds = [int(text.split(".")[1]) for _, text in queries]
        p_true = [
            0.8 - 0.1 * r if text in best else 0.99
            for r, (_, text) in zip(rounds, queries, strict=True)
        ]
        return np.array([[1 - p, p] for p in p_true])

    run(model, [Best("a", [2, 3]), Best("b", [4, 2]), Best("c", [3, 2])])
    assert sorted(Best.moves) == sorted(best)


def test_only_samples_that_are_right_and_can_change_are_attacked() -> None:
    spaces = [Numbered("a", [1]), Numbered("b", [1]), Numbered("c", [])]
    model = Model()
    found = attack("style", spaces, [1, 0, 1], np.tile(RIGHT, (3, 1)), model, 5, 0)
    assert [one.sample for one in found] == [0]
    assert model.queries() == {0: 1}
    with pytest.raises(ValueError, match="zip"):
        attack("style", spaces, [1, 1], np.tile(RIGHT, (3, 1)), model, 5, 0)


def test_progress_counts_ended_samples() -> None:
    calls: list[tuple[int, int]] = []
    spaces = [Numbered("a", [1]), Numbered("b", [1, 1]), Numbered("c", [])]
    run(Model(), spaces, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(0, 2), (1, 2), (2, 2)]
    run(Model(), spaces)  # none is needed


def test_a_curve_without_a_success_is_flat() -> None:
    assert curve([], num_correct=3, num=4, budget=2).tolist() == [0.75] * 3
    assert curve([Attacked(0, "", 3, False, 1)], 4, 4, budget=3).tolist() == [1.0] * 4
