"""Draws and acceptance against plain loops over numbers, and statistics with stated bounds.

Shape suffixes: B rows, G places, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distill.config.sampling import Decoding, Mixed, OnPolicy, Speculative, TeacherText
from distill.sampling.draw import STUDENT, TEACHER, are_kept, draw, row_seeds, uniforms

WORD = 2**64


def splitmix64(state: int) -> int:
    """The generator of Steele et al. 2014, in integers of any size."""
    z = (state + 0x9E3779B97F4A7C15) % WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def seed_of(seed: int, step: int, row: int) -> int:
    of_step = splitmix64((splitmix64(seed) + step) % WORD)
    return splitmix64((of_step + row) % WORD)


def uniform_of(row_seed: int, place: int, who: int) -> float:
    bits = splitmix64((row_seed + 2 * place + who) % WORD)
    return (splitmix64(bits) >> 11) / 2**53


def test_seeds_and_uniforms_are_those_of_a_counter_through_splitmix64() -> None:
    rows = [0, 1, 5, 2**40, 2**63 - 1, -1]
    for seed, step in ((0, 0), (0, 1), (1, 0), (7, 12345), (2**64 - 1, 3)):
        seeds_B = row_seeds(seed, step, np.array(rows, np.int64))
        assert seeds_B.dtype == np.uint64
        assert seeds_B.tolist() == [seed_of(seed, step, row) for row in rows]
        places = [0, 1, 2, 7, 100, 2**31]
        for who in (STUDENT, TEACHER):
            found_B = uniforms(seeds_B, np.array(places), who)
            expected = [
                uniform_of(int(s), place, who) for s, place in zip(seeds_B, places, strict=True)
            ]
            assert found_B.tolist() == expected


def test_no_two_of_seeds_steps_rows_places_and_drawers_share_a_number() -> None:
    found = {
        (seed, step, place, who): uniforms(
            row_seeds(seed, step, np.arange(50)), np.full(50, place), who
        )
        for seed in range(3)
        for step in range(3)
        for place in range(4)
        for who in (STUDENT, TEACHER)
    }
    values = np.concatenate(list(found.values()))
    assert len(np.unique(values)) == len(values) == 50 * 3 * 3 * 4 * 2


def test_uniforms_are_uniform_and_independent() -> None:
    """Of 40,000: each tenth of [0, 1) within 5 standard deviations of its share, and neighbours in
    row, place or drawer uncorrelated within 5 / √n."""
    places_B, num = np.tile(np.arange(200), 200), 40_000
    seeds_B = np.repeat(row_seeds(3, 9, np.arange(200)), 200)
    mine, others = uniforms(seeds_B, places_B, STUDENT), uniforms(seeds_B, places_B, TEACHER)
    assert mine.min() >= 0 and mine.max() < 1
    shares = np.histogram(mine, bins=10, range=(0, 1))[0]
    assert np.abs(shares - num / 10).max() < 5 * math.sqrt(num * 0.1 * 0.9)
    next_step = uniforms(np.repeat(row_seeds(3, 10, np.arange(200)), 200), places_B, STUDENT)
    for other in (others, next_step, np.roll(mine, 1), np.roll(mine, 200)):
        assert abs(np.corrcoef(mine, other)[0, 1]) < 5 / math.sqrt(num)


def token_of(logits: list[float], temperature: float, top_p: float, uniform: float) -> int:
    """The definition: of the most probable tokens with a total probability of at least top_p, the
    first at which the sum of probabilities, renormalised, exceeds ``uniform``."""
    largest = max(logits)
    odds = [math.exp((z - largest) / temperature) for z in logits]
    probs = [odd / sum(odds) for odd in odds]
    order = list(range(len(logits)))
    if top_p < 1:
        order.sort(key=lambda token: -probs[token])
    nucleus, mass = [], 0.0
    for token in order:
        if top_p < 1 and mass >= top_p:
            break
        nucleus.append(token)
        mass += probs[token]
    reached = 0.0
    for token in nucleus:
        reached += probs[token] / mass
        if uniform < reached:
            return token
    return nucleus[-1]


LOGITS_BV = torch.randn(40, 9, generator=torch.Generator().manual_seed(0)) * 2


@pytest.mark.parametrize("temperature", [0.2, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 1.0])
def test_draws_are_those_of_the_definition(temperature: float, top_p: float) -> None:
    uniform_B = uniforms(row_seeds(1, 2, np.arange(40)), np.zeros(40), STUDENT)
    decoding = Decoding(temperature=temperature, top_p=top_p)
    found_B = draw(LOGITS_BV, decoding, uniform_B)
    assert found_B.dtype == torch.int64 and found_B.shape == (40,)
    expected = [
        token_of(logits, temperature, top_p, uniform)
        for logits, uniform in zip(LOGITS_BV.tolist(), uniform_B.tolist(), strict=True)
    ]
    assert found_B.tolist() == expected


def test_temperature_0_is_the_most_probable_token() -> None:
    for uniform in (0.0, 0.5, 1 - 2**-53):
        found_B = draw(LOGITS_BV, Decoding(temperature=0), np.full(40, uniform))
        assert torch.equal(found_B, LOGITS_BV.argmax(1))


def drawn(logits_V: Tensor, decoding: Decoding, num: int = 20_000) -> Tensor:
    """How often each token is drawn."""
    uniform_B = uniforms(row_seeds(0, 0, np.arange(num)), np.zeros(num), TEACHER)
    found_B = draw(logits_V.expand(num, -1), decoding, uniform_B)
    return found_B.bincount(minlength=len(logits_V))


@pytest.mark.parametrize(
    ("decoding", "probs"),
    [
        # ln 1, 2, 4, 8 at T = 1 and at T = 0.5, where odds are squared.
        (Decoding(), [1 / 15, 2 / 15, 4 / 15, 8 / 15]),
        (Decoding(temperature=0.5), [1 / 85, 4 / 85, 16 / 85, 64 / 85]),
        # The two most probable have 12 / 15 ≥ 0.6, the first alone 8 / 15 < 0.6.
        (Decoding(top_p=0.6), [0, 0, 1 / 3, 2 / 3]),
        (Decoding(top_p=0.5), [0, 0, 0, 1]),
        # At T = 0.5 they have 80 / 85 ≥ 0.8: the temperature acts before top-p.
        (Decoding(temperature=0.5, top_p=0.8), [0, 0, 1 / 5, 4 / 5]),
        (Decoding(temperature=0.5, top_p=0.7), [0, 0, 0, 1]),
    ],
    ids=str,
)
def test_frequencies_are_the_probabilities(decoding: Decoding, probs: list[float]) -> None:
    """Of 20,000 draws, each within 4.5 standard deviations of a binomial: by chance alone one case
    in 150,000 fails, and the seed is fixed."""
    counts_V, num = drawn(torch.tensor([1.0, 2.0, 4.0, 8.0]).log(), decoding), 20_000
    for count, p in zip(counts_V.tolist(), probs, strict=True):
        assert abs(count - num * p) <= 4.5 * math.sqrt(num * p * (1 - p))


def test_a_token_without_probability_is_never_drawn() -> None:
    """At both ends of [0, 1), whatever rounding does to the sum."""
    logits_BV = torch.tensor([[-torch.inf, 0.0, 0.0, 0.0, -torch.inf]])
    for temperature in (0.3, 1.0):
        for top_p in (0.9, 1.0):
            decoding = Decoding(temperature=temperature, top_p=top_p)
            assert draw(logits_BV, decoding, np.array([0.0])).tolist() == [1]
            assert draw(logits_BV, decoding, np.array([1 - 2**-53])).tolist() == [3]


def test_a_uniform_of_1_is_the_last_token_of_the_nucleus() -> None:
    """No uniform is 1, but a product rounded up may be."""
    logits_BV = torch.tensor([[3.0, 0.0, 2.0, 1.0]]).expand(3, -1)
    uniform_B = np.array([1.0, 1.0, 0.0])
    assert draw(logits_BV, Decoding(), uniform_B).tolist() == [3, 3, 0]
    assert draw(logits_BV, Decoding(top_p=0.8), uniform_B).tolist() == [2, 2, 0]
    # The last one of each row: of the second it is the second token.
    logits_BV = torch.tensor([[3.0, 0.0, 2.0, 1.0], [3.0, 0.0, -torch.inf, -torch.inf]])
    for top_p in (1.0, 0.99):
        found_B = draw(logits_BV, Decoding(top_p=top_p), np.ones(2))
        assert found_B.tolist() == [3 if top_p == 1 else 1, 1]


def test_equal_logits_keep_their_order_in_a_nucleus() -> None:
    logits_BV = torch.zeros(1, 4)
    found = [
        draw(logits_BV, Decoding(top_p=0.5), np.array([u])).item() for u in (0.0, 0.49, 0.51, 0.99)
    ]
    assert found == [0, 0, 1, 1]


# Probabilities .4, .3, .2, .1 in another order than the tokens.
ORDERED_V = torch.tensor([0.2, 0.4, 0.1, 0.3]).log()


def kept(top_k: int, nucleus: float | None = None) -> list[bool]:
    """Of the drafts 0, 1, 2, 3."""
    logits_BGV = ORDERED_V.expand(1, 4, -1)
    return are_kept(logits_BGV, torch.arange(4)[None], top_k, nucleus)[0].tolist()


def test_a_draft_is_kept_if_fewer_than_k_tokens_are_more_probable() -> None:
    assert kept(1) == [False, True, False, False]
    assert kept(2) == [False, True, False, True]
    assert kept(3) == [True, True, False, True]
    assert kept(4) == [True] * 4


def test_a_nucleus_keeps_a_draft_if_the_more_probable_tokens_have_less_mass() -> None:
    """Mass above each of them: .7, 0, .9, .4; K has no say."""
    for top_k in (1, 4):
        assert kept(top_k, 0.3) == [False, True, False, False]
        assert kept(top_k, 0.5) == [False, True, False, True]
        assert kept(top_k, 0.8) == [True, True, False, True]
        assert kept(top_k, 0.95) == [True] * 4


def test_a_mass_equal_to_the_nucleus_is_too_much() -> None:
    """The first token has all the mass that numbers can hold."""
    logits_BGV, drafts_BG = torch.tensor([[[0.0, -1000.0]]]), torch.tensor([[1]])
    assert are_kept(logits_BGV, drafts_BG, 1, 1.0).item() is False
    logits_BGV[..., 1] = -10.0
    assert are_kept(logits_BGV, drafts_BG, 1, 1.0).item() is True


def test_tokens_as_probable_as_a_draft_do_not_count_against_it() -> None:
    logits_BGV = torch.tensor([1.0, 1.0, 1.0, 0.0]).expand(1, 4, -1)
    found = are_kept(logits_BGV, torch.arange(4)[None], 1)
    assert found.tolist() == [[True, True, True, False]]
    found = are_kept(logits_BGV, torch.arange(4)[None], 3)
    assert found.tolist() == [[True, True, True, False]]


def test_drafts_are_compared_at_their_own_row_and_place() -> None:
    generator = torch.Generator().manual_seed(4)
    logits_BGV = torch.randn(3, 4, 7, generator=generator)
    drafts_BG = torch.randint(7, (3, 4), generator=generator)
    probs_BGV = logits_BGV.double().softmax(-1)
    for top_k in (1, 3, 6):
        for nucleus in (None, 0.3, 0.9):
            found = are_kept(logits_BGV, drafts_BG, top_k, nucleus)
            for b in range(3):
                for g in range(4):
                    own = int(drafts_BG[b, g])
                    above = [v for v in range(7) if logits_BGV[b, g, v] > logits_BGV[b, g, own]]
                    mass = sum(float(probs_BGV[b, g, v]) for v in above)
                    is_kept = len(above) < top_k if nucleus is None else mass < nucleus
                    assert found[b, g] == is_kept


def test_defaults_are_those_of_the_methods() -> None:
    """SKD: γ = 5, K = 25 constant, the student draws at (.5, .5), the teacher at (.2, .5)."""
    shown: dict[str, Any] = Speculative().model_dump()
    assert shown == {
        "type": "skd",
        "teacher": None,
        "drafts": 5,
        "top_k": 25,
        "top_k_end": None,
        "nucleus": None,
        "decoding": {"temperature": 0.5, "top_p": 0.5},
        "teacher_decoding": {"temperature": 0.2, "top_p": 0.5},
        "staleness": 0,
        "max_new_tokens": None,
    }
    assert OnPolicy().decoding == Mixed().decoding == Decoding(temperature=1.0, top_p=1.0)
    assert Mixed().student_share == 0.5
    assert TeacherText().decoding == Decoding(temperature=0, top_p=1)


def test_k_changes_linearly_from_the_first_step_to_the_last() -> None:
    decaying = Speculative(top_k=25, top_k_end=5)
    assert [decaying.top_k_at(t) for t in (0.0, 0.25, 0.5, 0.9, 1.0)] == [25, 20, 15, 7, 5]
    rising = Speculative(top_k=1, top_k_end=11)
    assert [rising.top_k_at(t) for t in (0.0, 0.5, 1.0)] == [1, 6, 11]
    assert [Speculative().top_k_at(t) for t in (0.0, 0.5, 1.0)] == [25] * 3
