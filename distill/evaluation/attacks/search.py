"""Searches for a text that the model classifies wrongly.

Each is a generator: it yields texts to query and is sent the probability of the true label for
each. budget.py counts the queries, stops a search at its success, and queries the texts of many
searches in one batch. Every queried text preserves behaviour, so that any of them may be the
success; the published attacks also query masked texts [ours].
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from typing import Literal

import numpy as np

from distill.evaluation.attacks.spaces import Space

Method = Literal["random", "greedy", "style", "combined"]
Search = Generator[list[str], np.ndarray, str]
"""Yields texts, is sent p(true label) of each (float64), returns the best text."""

NUM_SUBSTITUTES = 4
"""Names tried for each identifier in turn."""
MAX_REJECTED = 100
"""Proposals in a row that are not valid before a search gives up."""
PATIENCE = 3
"""Rounds of styles without gain before a search gives up."""


def random_renaming(space: Space, p_true: float, budget: int, rng: random.Random) -> Search:
    """Metropolis–Hastings over names: accept with min(1, (1 − p') / (1 − p)).

    As MHM, Zhang et al. 2020 (AAAI): a random identifier, a random name, one query.
    """
    parts, new, text = space.parts, dict[str, str](), space.text
    rejected = 0
    while parts and rejected < MAX_REJECTED:
        part = rng.choice(parts)
        names = space.substitutes(part, 1, rng)
        proposed = new | {part: names[0]} if names else new
        candidate = space.replaced(proposed)
        if candidate is None or candidate == text:
            rejected += 1
            continue
        rejected = 0
        (p_new,) = yield [candidate]
        if rng.random() * (1 - p_true) <= 1 - p_new:
            new, text, p_true = proposed, candidate, float(p_new)
    return text


def greedy_renaming(space: Space, p_true: float, budget: int, rng: random.Random) -> Search:
    """The most important identifier first; for each the best of a few names.

    ALERT-like (Yang et al. 2022, ICSE): greedy stage only, no genetic stage, no
    masked-language-model substitutes; names are those of other snippets, as in WIR-Random.
    Importance: how far one replacement lowers p(true); at most half the budget.
    """
    parts = list(space.parts)
    rng.shuffle(parts)
    parts = parts[: max(1, budget // 2)]
    first = {part: names[0] for part in parts if (names := space.substitutes(part, 1, rng))}
    tried = {part: text for part, name in first.items() if (text := space.replaced({part: name}))}
    if not tried:
        return space.text
    p_parts = yield list(tried.values())
    order = [list(tried)[i] for i in np.argsort(p_parts, kind="stable")]
    new, text = dict[str, str](), space.text
    if p_parts.min() < p_true:
        new, text, p_true = {order[0]: first[order[0]]}, tried[order[0]], float(p_parts.min())
    known = {space.text, *tried.values()}
    for part in order:
        names = [first[part], *space.substitutes(part, NUM_SUBSTITUTES, rng)]
        proposals = [new | {part: name} for name in dict.fromkeys(names)]
        valid = [(p, t) for p in proposals if (t := space.replaced(p)) and t not in known]
        if not valid:
            continue
        p_new = yield [t for _, t in valid]
        best = int(p_new.argmin())
        if p_new[best] < p_true:
            (new, text), p_true = valid[best], float(p_new[best])
    return text


def style_transfer(space: Space, p_true: float, budget: int, rng: random.Random) -> Search:
    """Layout, comments, dead code, loops, branches, …: the best of each round, and on from there.

    In the spirit of Quiring et al. 2019 (USENIX Security), greedily.
    """
    idle = 0
    while idle < PATIENCE:
        variants = space.styled(rng)
        if not variants:
            break
        p_new = yield variants
        best = int(p_new.argmin())
        idle = 0 if p_new[best] < p_true else idle + 1
        if p_new[best] < p_true:
            space, p_true = space.moved(variants[best]), float(p_new[best])
    return space.text


def combined(space: Space, p_true: float, budget: int, rng: random.Random) -> Search:
    """Greedy renaming (ALERT-like) for half the budget, then other styles of its best text."""
    search = greedy_renaming(space, p_true, budget // 2, rng)
    left, answers, texts = budget // 2, None, [space.text]
    lowest, text = p_true, space.text
    try:
        while left > 0:
            texts = (next(search) if answers is None else search.send(answers))[:left]
            answers = yield texts
            left -= len(texts)
            if answers.min() < lowest:
                lowest, text = float(answers.min()), texts[int(answers.argmin())]
    except StopIteration:
        pass
    return (yield from style_transfer(space.moved(text), lowest, budget, rng))


METHODS: dict[Method, Callable[[Space, float, int, random.Random], Search]] = {
    "random": random_renaming,
    "greedy": greedy_renaming,
    "style": style_transfer,
    "combined": combined,
}
