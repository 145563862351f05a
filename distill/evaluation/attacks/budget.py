"""Attacks on many samples at once: counts queries, sends them in batches, stops each at success.

Shape suffixes: B queried texts, C classes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from distill.evaluation.attacks.search import METHODS, Method, Search
from distill.evaluation.attacks.spaces import Space

Query = Callable[[Sequence[tuple[int, str]]], np.ndarray]
"""(sample, its text) of each → probabilities, float64 [B, C]."""


@dataclass(frozen=True)
class Attacked:
    """One sample that the model classified correctly, after the attack."""

    sample: int
    text: str
    """The text that flipped it, else the original."""
    queries: int
    is_flipped: bool
    predicted: int
    """The class that the model predicts now."""


@dataclass
class _Running:
    sample: int
    search: Search
    texts: list[str]
    queries: int = 0


def attack(
    method: Method,
    spaces: Sequence[Space],
    labels: Sequence[int],
    probs_BC: np.ndarray,
    ask: Query,
    budget: int,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Attacked]:
    """Attack every sample that has something to change and whose prediction is correct.

    ``probs_BC``: of the original samples; they are no queries. ``budget``: queries a sample, at
    least 1. A sample's attack depends on ``seed``, its place and the model's outputs alone, not on
    the other attacks. In the order of the samples.
    """
    assert budget >= 1
    done: list[Attacked] = []
    running: list[_Running] = []
    for i, (space, label) in enumerate(zip(spaces, labels, strict=True)):
        if probs_BC[i].argmax() != label:
            continue
        rng = random.Random(f"{seed}/{method}/{i}")
        search = METHODS[method](space, float(probs_BC[i, label]), budget, rng)
        one = _Running(i, search, [])
        if _advance(one, None, budget):  # else there was nothing to try
            running.append(one)
    total = len(running)
    while running:
        progress(len(done), total)
        asked = [(one.sample, text) for one in running for text in one.texts]
        answers_BC = ask(asked)
        still: list[_Running] = []
        start = 0
        for one in running:
            probs_of_one_BC = answers_BC[start : start + len(one.texts)]
            start += len(one.texts)
            ended = _ended(
                one, probs_of_one_BC, labels[one.sample], spaces[one.sample].text, budget
            )
            if ended is None:
                still.append(one)
            else:
                done.append(ended)
        running = still
    progress(total, total)
    return sorted(done, key=lambda attacked: attacked.sample)


def _ended(
    one: _Running, probs_of_one_BC: np.ndarray, label: int, original: str, budget: int
) -> Attacked | None:
    """How this attack ended, or None: it has new texts to query."""
    guesses = probs_of_one_BC.argmax(1)
    flips = np.flatnonzero(guesses != label)
    if len(flips):
        first = int(flips[0])
        queries = one.queries + first + 1
        one.search.close()
        return Attacked(one.sample, one.texts[first], queries, True, int(guesses[first]))
    one.queries += len(one.texts)
    if one.queries >= budget or not _advance(one, probs_of_one_BC[:, label], budget):
        one.search.close()
        return Attacked(one.sample, original, one.queries, False, label)
    return None


def _advance(one: _Running, p_true_B: np.ndarray | None, budget: int) -> bool:
    """The next texts, as many as the budget leaves; False once the search gives up."""
    try:
        texts = next(one.search) if p_true_B is None else one.search.send(p_true_B)
    except StopIteration:
        return False
    one.texts = texts[: budget - one.queries]
    return True


def curve(attacked: Sequence[Attacked], num_correct: int, num: int, budget: int) -> np.ndarray:
    """Accuracy over all ``num`` samples after 0, 1, …, ``budget`` queries each; [budget + 1].

    ``num_correct`` of them were right before the attack.
    """
    flipped_at = np.array([a.queries for a in attacked if a.is_flipped], np.int64)
    lost = np.bincount(flipped_at, minlength=budget + 1).cumsum()
    return (num_correct - lost) / num
