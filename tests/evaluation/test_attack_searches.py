"""Each search by its own rule: queries driven by hand, and the chain against its distribution."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count, pairwise

import numpy as np
import pytest

from distill.evaluation.attacks import METHODS
from distill.evaluation.attacks.search import (
    MAX_REJECTED,
    NUM_SUBSTITUTES,
    PATIENCE,
    Search,
    combined,
    greedy_renaming,
    random_renaming,
    style_transfer,
)

PART = "abcdefghijklmnopqrstuvwxyz"


class Letters:
    """A text of single letters, each with a number: ``a b`` becomes ``a1 b`` or ``a2 b3``.

    A style puts a mark before the text. Names and styles are counted, not drawn.
    """

    def __init__(
        self,
        num_parts: int,
        num_names: int = 9,
        text: str | None = None,
        marks: Sequence[str] = "!?",
    ) -> None:
        self.parts = tuple(PART[:num_parts])
        self.text = " ".join(self.parts) if text is None else text
        self.num_names, self.marks = num_names, marks
        self.moves: list[str] = []

    def substitutes(self, part: str, num: int, rng: random.Random) -> list[str]:
        return [f"{part}{i}" for i in range(1, self.num_names + 1)][:num]

    def replaced(self, new: Mapping[str, str]) -> str | None:
        return " ".join(new.get(part, part) for part in self.parts)

    def styled(self, rng: random.Random) -> list[str]:
        return [mark + self.text for mark in self.marks]

    def moved(self, text: str) -> Letters:
        self.moves.append(text)
        space = Letters(len(self.parts), self.num_names, text, self.marks)
        space.moves = self.moves
        return space


class DrawnLetters(Letters):
    """Names are drawn, as those of code."""

    def substitutes(self, part: str, num: int, rng: random.Random) -> list[str]:
        return [f"{part}{rng.randint(1, self.num_names)}" for _ in range(num)]


class NewLetters(Letters):
    """No name comes twice."""

    def substitutes(self, part: str, num: int, rng: random.Random) -> list[str]:
        self.num_names += 1
        return [f"{part}{self.num_names}"]


class Invalid(Letters):
    """Every proposal is invalid, except each ``period``-th."""

    def __init__(self, period: int) -> None:
        super().__init__(2)
        self.period, self.num_tried = period, 0

    def replaced(self, new: Mapping[str, str]) -> str | None:
        self.num_tried += 1
        return None if self.num_tried % self.period else f"valid {self.num_tried}"


def started(search: Search) -> list[str]:
    return next(search)


def answered(search: Search, *p_true: float) -> list[str]:
    return search.send(np.array(p_true))


def ended(search: Search, *p_true: float) -> str:
    """The text that it returns after these last answers."""
    with pytest.raises(StopIteration) as stopped:
        search.send(np.array(p_true))
    return stopped.value.value


# ---- MHM: accept with min(1, (1 − p′) / (1 − p)) ----------------------------------------------


@pytest.mark.parametrize(
    ("p_before", "p_new", "share"),
    [
        (0.6, 0.8, 0.5),
        (0.2, 0.8, 0.25),
        (0.5, 0.5, 1.0),
        (0.9, 0.1, 1.0),
        (0.5, 1.0, 0.0),
        (1.0, 1.0, 1.0),
    ],
)
def test_mhm_accepts_by_the_ratio_of_the_probabilities_of_success(p_before, p_new, share) -> None:
    """Of a thousand first proposals; a bound of four standard deviations."""
    accepted: list[bool] = []
    for seed in count():
        search = random_renaming(NewLetters(2), p_before, 100, random.Random(seed))
        (first,) = started(search)
        changed = next(part for part in first.split() if len(part) > 1)
        (second,) = answered(search, p_new)
        changes = [part for part in second.split() if len(part) > 1]
        if len({part[0] for part in (changed, *changes)}) == 1:
            continue  # the same letter was drawn again, which shows nothing
        accepted.append(changed in changes)
        if len(accepted) == 1000:
            break
    bound = 4 * (share * (1 - share) / 1000) ** 0.5
    assert np.mean(accepted) == pytest.approx(share, abs=bound)


def test_mhm_visits_texts_in_proportion_to_the_probability_of_success() -> None:
    """The stationary distribution of a Metropolis–Hastings chain is its target, here 1 − p.

    p depends on the name of ``a`` alone, so every change of ``b`` is accepted, and shows the name
    that ``a`` has at that time.
    """
    p_true = {"a": 0.99, "a1": 0.9, "a2": 0.7, "a3": 0.4}
    search = random_renaming(DrawnLetters(2, num_names=3), 0.99, 100, random.Random(0))
    (candidate,) = started(search)
    seen, b_now = Counter[str](), "b"
    for _ in range(8000):
        a, b = candidate.split()
        if b != b_now:
            b_now = b
            seen[a] += 1
        (candidate,) = answered(search, p_true[a])
    shares = np.array([seen[name] for name in ("a1", "a2", "a3")]) / seen.total()
    assert shares.tolist() == pytest.approx([0.1, 0.3, 0.6], abs=0.04)
    assert seen["a"] <= 40  # the first names, which cannot come back


def test_mhm_changes_one_name_a_query_and_keeps_what_it_accepted() -> None:
    search = random_renaming(DrawnLetters(4), 0.9, 100, random.Random(1))
    (candidate,) = started(search)
    texts, p_true = ["a b c d", candidate], 0.9
    for _ in range(40):
        p_true -= 0.01  # always better, so always accepted
        (candidate,) = answered(search, p_true)
        texts.append(candidate)
    for before, after in pairwise(texts):
        assert sum(x != y for x, y in zip(before.split(), after.split(), strict=True)) == 1


def test_mhm_gives_up_after_a_hundred_invalid_proposals_in_a_row() -> None:
    assert MAX_REJECTED == 100
    space = Invalid(period=101)
    search = random_renaming(space, 0.9, 100, random.Random(0))
    with pytest.raises(StopIteration) as stopped:
        next(search)
    assert (space.num_tried, stopped.value.value) == (100, "a b")
    space = Invalid(period=100)  # 99 invalid ones, then a valid one: it never gives up
    search = random_renaming(space, 0.9, 100, random.Random(0))
    texts = [started(search), answered(search, 0.5), answered(search, 0.4)]
    assert texts == [["valid 100"], ["valid 200"], ["valid 300"]]


def test_mhm_does_not_query_the_text_that_it_has() -> None:
    space = Letters(1, num_names=1)  # one proposal only
    search = random_renaming(space, 0.9, 100, random.Random(0))
    assert started(search) == ["a1"]
    assert ended(search, 0.5) == "a1"


def test_mhm_without_names_ends_at_once() -> None:
    for space in (Letters(0), Letters(2, num_names=0)):
        with pytest.raises(StopIteration) as stopped:
            next(random_renaming(space, 0.9, 100, random.Random(0)))
        assert stopped.value.value == space.text


# ---- greedy: the most important first; for each the best of a few ----------------------------


def importance(texts: Sequence[str], p_of: Mapping[str, float]) -> list[float]:
    """The answer of each first query, by the letter that it changes."""
    changed = [next(part[0] for part in text.split() if len(part) > 1) for text in texts]
    return [p_of[letter] for letter in changed]


def test_greedy_renames_in_the_order_of_importance_and_keeps_the_best() -> None:
    search = greedy_renaming(Letters(3), 0.9, 100, random.Random(0))
    first = started(search)
    assert sorted(first) == ["a b c1", "a b1 c", "a1 b c"]  # one name for each
    p_first = importance(first, {"a": 0.8, "b": 0.3, "c": 0.5})
    # b lowers p most: its name stays, and its other names are tried first.
    assert answered(search, *p_first) == ["a b2 c", "a b3 c", "a b4 c"]
    # b3 is best. Then c, which keeps it: all four names, as none was tried together with b3.
    assert answered(search, 0.25, 0.2, 0.28) == [f"a b3 c{i}" for i in (1, 2, 3, 4)]
    # None is better than 0.2, so c stays; of a the last name is best.
    assert answered(search, 0.21, 0.2, 0.3, 0.9) == [f"a{i} b3 c" for i in (1, 2, 3, 4)]
    assert ended(search, 0.3, 0.2, 0.4, 0.15) == "a4 b3 c"


def test_greedy_keeps_the_original_where_nothing_is_better() -> None:
    search = greedy_renaming(Letters(2), 0.5, 100, random.Random(0))
    first = started(search)
    # The names that were tried alone are not queried again.
    p_first = importance(first, {"a": 0.5, "b": 0.6})
    assert answered(search, *p_first) == ["a2 b", "a3 b", "a4 b"]
    assert answered(search, 0.5, 0.5, 0.5) == ["a b2", "a b3", "a b4"]
    assert ended(search, 0.5, 0.5, 0.5) == "a b"


def test_greedy_keeps_the_most_important_name_where_no_other_is_better() -> None:
    search = greedy_renaming(Letters(2), 0.9, 100, random.Random(0))
    p_first = importance(started(search), {"a": 0.3, "b": 0.6})
    assert answered(search, *p_first) == ["a2 b", "a3 b", "a4 b"]
    assert answered(search, 0.3, 0.4, 0.5) == [f"a1 b{i}" for i in (1, 2, 3, 4)]
    assert ended(search, 0.3, 0.3, 0.4, 0.5) == "a1 b"


def test_equally_important_names_are_renamed_in_the_order_of_their_queries() -> None:
    search = greedy_renaming(Letters(26, num_names=2), 0.9, 100, random.Random(0))
    first = started(search)
    order = [next(part[0] for part in text.split() if len(part) > 1) for text in first]
    p_first = [0.5 if i % 2 else 0.6 for i in range(26)]
    texts = answered(search, *p_first)
    renamed = [letter_changed(texts)]
    for _ in range(25):
        texts = answered(search, *[0.99] * len(texts))
        renamed.append(letter_changed(texts))
    assert renamed == order[1::2] + order[::2]


def letter_changed(texts: Sequence[str]) -> str:
    """The letter whose second name is tried; the others have their first or none."""
    (letter,) = {part[0] for text in texts for part in text.split() if part.endswith("2")}
    return letter


def test_greedy_tries_four_names_for_each_in_turn() -> None:
    assert NUM_SUBSTITUTES == 4
    search = greedy_renaming(Letters(2), 0.9, 100, random.Random(0))
    p_first = importance(started(search), {"a": 0.1, "b": 0.2})
    assert len(answered(search, *p_first)) == 3  # the fourth was the first query
    assert len(answered(search, 0.1, 0.1, 0.1)) == 4


@pytest.mark.parametrize(("budget", "num"), [(1, 1), (3, 1), (6, 3), (8, 4), (20, 10), (90, 10)])
def test_importance_takes_at_most_half_the_budget(budget: int, num: int) -> None:
    search = greedy_renaming(Letters(10), 0.9, budget, random.Random(0))
    assert len(started(search)) == num


def test_greedy_takes_the_letters_in_a_drawn_order() -> None:
    firsts = [
        started(greedy_renaming(Letters(10), 0.9, 6, random.Random(seed)))[0] for seed in range(40)
    ]
    assert len(set(firsts)) > 5  # with less budget than letters, not always the same ones


class OnlyFirstNames(Letters):
    """A second name for a letter is invalid."""

    def replaced(self, new: Mapping[str, str]) -> str | None:
        is_valid = all(name.endswith("1") for name in new.values()) and "b" not in new
        return super().replaced(new) if is_valid else None


def test_greedy_leaves_out_what_is_not_valid() -> None:
    search = greedy_renaming(OnlyFirstNames(3), 0.9, 100, random.Random(0))
    first = started(search)
    assert sorted(first) == ["a b c1", "a1 b c"]
    assert answered(search, *importance(first, {"a": 0.4, "c": 0.6})) == ["a1 b c1"]
    assert ended(search, 0.3) == "a1 b c1"
    for space in (Letters(0), Letters(2, num_names=0)):
        with pytest.raises(StopIteration) as stopped:
            next(greedy_renaming(space, 0.9, 100, random.Random(0)))
        assert stopped.value.value == space.text


# ---- style: the best of each round, and on from there -----------------------------------------


def test_style_goes_on_from_the_best_of_each_round() -> None:
    search = style_transfer(Letters(1), 0.9, 100, random.Random(0))
    assert started(search) == ["!a", "?a"]
    assert answered(search, 0.8, 0.6) == ["!?a", "??a"]
    assert answered(search, 0.5, 0.55) == ["!!?a", "?!?a"]
    assert PATIENCE == 3
    # Three rounds without gain; an equal one is none.
    assert answered(search, 0.5, 0.7) == ["!!?a", "?!?a"]
    assert answered(search, 0.6, 0.5) == ["!!?a", "?!?a"]
    assert ended(search, 0.9, 0.9) == "!?a"


def test_a_gain_starts_the_patience_of_style_anew() -> None:
    search = style_transfer(Letters(1), 0.9, 100, random.Random(0))
    started(search)
    for text, p_true in [("a", 0.9), ("a", 0.9), ("!a", 0.7), ("!a", 0.9), ("!a", 0.9)]:
        assert answered(search, p_true, 0.95) == [f"!{text}", f"?{text}"]
    assert ended(search, 0.9, 0.9) == "!a"


def test_style_ends_where_there_is_no_other_style() -> None:
    with pytest.raises(StopIteration) as stopped:
        next(style_transfer(Letters(1, marks=()), 0.9, 100, random.Random(0)))
    assert stopped.value.value == "a"


# ---- combined: greedy for half the budget, then styles of the best ----------------------------


def test_combined_queries_names_for_half_the_budget_and_styles_after() -> None:
    search = combined(Letters(3), 0.9, 20, random.Random(0))
    first = started(search)
    assert len(first) == 3
    p_first = importance(first, {"a": 0.8, "b": 0.3, "c": 0.5})
    assert answered(search, *p_first) == ["a b2 c", "a b3 c", "a b4 c"]
    assert answered(search, 0.25, 0.2, 0.28) == [f"a b3 c{i}" for i in (1, 2, 3, 4)]
    # 10 of 20 queries: the best so far is b3 with c2, from which the styles start.
    assert answered(search, 0.4, 0.1, 0.3, 0.2) == ["!a b3 c2", "?a b3 c2"]
    # A style must be better than 0.1.
    assert answered(search, 0.15, 0.12) == ["!a b3 c2", "?a b3 c2"]
    assert answered(search, 0.15, 0.09) == ["!?a b3 c2", "??a b3 c2"]


def test_combined_cuts_the_names_at_half_the_budget() -> None:
    search = combined(Letters(3), 0.9, 9, random.Random(0))
    first = started(search)
    assert len(first) == 2  # greedy's own half of 4
    letters = sorted(next(part[0] for part in text.split() if len(part) > 1) for text in first)
    p_first = importance(first, dict(zip(letters, (0.3, 0.5), strict=True)))
    second = answered(search, *p_first)
    assert len(second) == 2  # of three
    texts = answered(search, 0.2, 0.25)
    assert texts == [mark + second[0] for mark in "!?"]


def test_combined_uses_the_last_query_of_its_half_for_a_name() -> None:
    search = combined(Letters(3), 0.9, 14, random.Random(0))
    p_first = importance(started(search), {"a": 0.8, "b": 0.3, "c": 0.5})
    assert answered(search, *p_first) == ["a b2 c", "a b3 c", "a b4 c"]
    assert answered(search, 0.25, 0.2, 0.28) == ["a b3 c1"]  # the seventh of 14
    assert answered(search, 0.1) == ["!a b3 c1", "?a b3 c1"]


def test_combined_goes_to_styles_where_there_are_no_names() -> None:
    search = combined(Letters(1, num_names=0), 0.9, 20, random.Random(0))
    assert started(search) == ["!a", "?a"]
    assert answered(search, 0.9, 0.8) == ["!?a", "??a"]


def test_combined_keeps_the_original_where_no_name_is_better() -> None:
    search = combined(Letters(1, num_names=1), 0.5, 20, random.Random(0))
    assert started(search) == ["a1"]
    assert answered(search, 0.5) == ["!a", "?a"]


def test_methods_by_name() -> None:
    assert {
        "random": random_renaming,
        "greedy": greedy_renaming,
        "style": style_transfer,
        "combined": combined,
    } == METHODS
