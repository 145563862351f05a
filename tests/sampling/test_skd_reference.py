"""SKD as its definition, one token after the other and without any cache, in value and in counts.

Shape suffixes: b sequences still being written, N prompts, G drafts of a round, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from distill.config.sampling import Decoding, Speculative
from distill.sampling.draw import STUDENT, TEACHER, row_seeds, uniforms
from distill.sampling.generation import Drafted, GeneratedBatch, write
from distill.sampling.records import DraftRequest, VerifiedDrafts
from distill.sampling.verification import Verification
from distill.training.speculation import TeacherVerifier
from tests.sampling.test_draw import seed_of, token_of, uniform_of
from tests.toys_language import NUM_TOKENS, llama

PROMPTS = [[3, 4, 5], [6], [7, 8, 9, 10, 11], [2, 3]]
LIMITS = [14, 6, 11, 1]
ENDS = (0, 12)
SEED, STEP = 4, 7
ROWS = [10, 3, 11, 8]
ALL, GREEDY = Decoding(), Decoding(temperature=0)


class Plain:
    """Logits of a model for any prefix, by a forward of its own, remembered."""

    def __init__(self, seed: int, vocab_size: int = NUM_TOKENS) -> None:
        self.model = llama(seed, vocab_size)
        self._known: dict[tuple[int, ...], list[float]] = {}

    @torch.no_grad()
    def after(self, prefix: Sequence[int]) -> list[float]:
        key = tuple(prefix)
        if key not in self._known:
            logits_TV = self.model(input_ids=torch.tensor([key])).logits[0]
            for end in range(1, len(key) + 1):
                self._known[key[:end]] = logits_TV[end - 1, :NUM_TOKENS].tolist()
        return self._known[key]

    def draw(self, prefix: Sequence[int], decoding: Decoding, uniform: float) -> int:
        logits = self.after(prefix)
        if decoding.temperature == 0:
            return logits.index(max(logits))
        return token_of(logits, decoding.temperature, decoding.top_p, uniform)


MODELS = [Plain(1), Plain(2)]


@dataclass
class Expected:
    text: list[int] = field(default_factory=list)
    has_ended: bool = False
    num_tested: int = 0
    num_passed: int = 0
    num_rounds: int = 0


def accepts(teacher: Plain, prefix: list[int], draft: int, sampling: Speculative) -> bool:
    logits = teacher.after(prefix)
    above = [z for z in logits if z > logits[draft]]
    if sampling.nucleus is None:
        return len(above) < sampling.top_k
    largest = max(logits)
    mass = sum(np.exp(z - largest) for z in above) / sum(np.exp(z - largest) for z in logits)
    return mass < sampling.nucleus


def reference(student: Plain, teacher: Plain, sampling: Speculative, n: int) -> Expected:
    """Of one prompt alone."""
    found, prompt, limit = Expected(), PROMPTS[n], LIMITS[n]
    row_seed = seed_of(SEED, STEP, ROWS[n])
    while not found.has_ended and len(found.text) < limit:
        start = len(found.text)
        drafts: list[int] = []
        for place in range(start, start + sampling.drafts):
            uniform = uniform_of(row_seed, place, STUDENT)
            drafts.append(student.draw(prompt + found.text + drafts, sampling.decoding, uniform))
        found.num_rounds += 1
        for draft in drafts:
            if len(found.text) == limit:
                break
            is_kept = accepts(teacher, prompt + found.text, draft, sampling)
            token = draft
            if not is_kept:
                uniform = uniform_of(row_seed, start, TEACHER)
                token = teacher.draw(prompt + found.text, sampling.teacher_decoding, uniform)
            found.num_tested += 1
            found.num_passed += is_kept
            found.text.append(token)
            found.has_ended = token in ENDS
            if found.has_ended or not is_kept:
                break
    return found


class Recorded:
    """A client whose one teacher verifies, and that keeps requests and verdicts."""

    def __init__(self, model: Any) -> None:
        self.judging = Verification(model, NUM_TOKENS)
        self.requests: list[DraftRequest] = []
        self.verdicts: list[VerifiedDrafts] = []

    def call(self, teacher: str, request: DraftRequest) -> VerifiedDrafts:
        assert teacher == "t"
        self.requests.append(request)
        self.verdicts.append(self.judging.verify(request))
        return self.verdicts[-1]


def seeds_N() -> np.ndarray:
    return row_seeds(SEED, STEP, np.array(ROWS))


def judge_of(client: Any, sampling: Speculative, **changes: Any) -> TeacherVerifier:
    given: dict[str, Any] = {
        "computed": lambda *_: None,
        "teacher": "t",
        "writer": "w",
        "step": STEP,
        "prompts": tuple(np.array(prompt) for prompt in PROMPTS),
        "seeds_N": seeds_N(),
        "top_k": sampling.top_k,
        "num_tokens": NUM_TOKENS,
    }
    return TeacherVerifier(client, sampling=sampling, **given | changes)


def generated(student: Any, sampling: Speculative, client: Any) -> GeneratedBatch:
    verify = judge_of(client, sampling)
    return write(
        student,
        NUM_TOKENS,
        PROMPTS,
        LIMITS,
        ENDS,
        seeds_N(),
        sampling.decoding,
        sampling.drafts,
        verify,
    )


SETTINGS = [
    Speculative(top_k=4),
    Speculative(top_k=12, decoding=ALL, teacher_decoding=Decoding(temperature=0.7)),
    Speculative(drafts=1, top_k=2, decoding=ALL, teacher_decoding=ALL),
    Speculative(drafts=2, top_k=12, decoding=ALL, teacher_decoding=ALL),
    Speculative(drafts=3, top_k=1, decoding=ALL, teacher_decoding=GREEDY),
    Speculative(drafts=7, nucleus=0.9, decoding=Decoding(temperature=1.5)),
    Speculative(drafts=4, nucleus=0.01, decoding=ALL, teacher_decoding=ALL),
    Speculative(drafts=5, top_k=NUM_TOKENS, decoding=Decoding(temperature=0.8, top_p=0.9)),
]


@pytest.mark.parametrize("sampling", SETTINGS, ids=lambda s: f"{s.drafts}-{s.top_k}-{s.nucleus}")
def test_text_and_counts_are_those_of_the_definition(sampling: Speculative) -> None:
    student, teacher = MODELS[0], MODELS[1]
    expected = [reference(student, teacher, sampling, n) for n in range(len(PROMPTS))]
    found = generated(student.model, sampling, Recorded(teacher.model))
    assert found.texts == [one.text for one in expected]
    assert found.has_ended == [one.has_ended for one in expected]
    assert found.num_tested == sum(one.num_tested for one in expected)
    assert found.num_passed == sum(one.num_passed for one in expected)
    assert found.num_calls == sum(one.num_rounds for one in expected)
    assert len(found.rounds) == max(one.num_rounds for one in expected)


def test_columns_that_only_pad_a_vocabulary_are_no_tokens() -> None:
    """Neither drafted, nor drawn by the teacher, nor counted above a draft."""
    sampling = Speculative(drafts=3, top_k=5, decoding=ALL, teacher_decoding=ALL)
    student, teacher = Plain(1, NUM_TOKENS + 40), Plain(2, NUM_TOKENS + 40)
    expected = [reference(student, teacher, sampling, n).text for n in range(len(PROMPTS))]
    found = generated(student.model, sampling, Recorded(teacher.model))
    assert found.texts == expected


def test_the_settings_of_the_definition_cover_both_ends() -> None:
    """Else the comparison would not see a wrong rule."""
    student, teacher = MODELS[0], MODELS[1]
    found = [
        [reference(student, teacher, sampling, n) for n in range(len(PROMPTS))]
        for sampling in SETTINGS
    ]
    ended = [one.has_ended for each in found for one in each]
    assert any(ended) and not all(ended)
    rates = [sum(o.num_passed for o in e) / sum(o.num_tested for o in e) for e in found]
    assert min(rates) < 0.5 and max(rates) == 1 and any(0.3 < rate < 0.9 for rate in rates)
    assert len({str([one.text for one in each]) for each in found}) == len(SETTINGS)


def test_the_teacher_is_sent_what_it_needs_to_verify() -> None:
    """K, nucleus and the teacher's own decoding; uniforms of its own by seed and place."""
    sampling = Speculative(drafts=3, top_k=4, nucleus=0.9, decoding=ALL)
    client = Recorded(llama(2))
    started = time.perf_counter()
    found = generated(llama(1), sampling, client)
    elapsed = time.perf_counter() - started
    assert 0 < sum(verified.compute_s for verified in client.verdicts) < elapsed
    texts: list[int] = [0] * len(PROMPTS)
    for number, (request, verified) in enumerate(
        zip(client.requests, client.verdicts, strict=True)
    ):
        assert request.request_id == verified.request_id == f"w/{STEP}/{number}"
        assert (request.writer, request.step) == ("w", STEP)
        assert (request.top_k, request.nucleus) == (4, 0.9)
        assert request.decoding == sampling.teacher_decoding != sampling.decoding
        assert len(request.past) == number
        rows = request.rows_b.tolist()
        expected = [uniform_of(seed_of(SEED, STEP, ROWS[row]), texts[row], TEACHER) for row in rows]
        assert request.uniform_b.tolist() == expected
        assert verified.num_replayed == 0 and verified.compute_s > 0
        for place, row in enumerate(rows):
            before = PROMPTS[row] + found.texts[row][: texts[row]]
            assert request.last_b[place] == before[-1]
            texts[row] += int(verified.num_kept_b[place]) + int(verified.replacement_b[place] >= 0)
    # Rounds are what the teacher read, and how much of it stays.
    for one, request, verified in zip(found.rounds, client.requests, client.verdicts, strict=True):
        assert np.array_equal(one.rows_b, request.rows_b)
        assert np.array_equal(one.tokens_bG, request.read_bG)
        assert np.array_equal(one.kept_b, np.minimum(verified.num_kept_b + 1, 3))


def test_a_request_can_be_repeated_and_sent_to_any_replica() -> None:
    """In any order: the same request has the same verdict, from a cache or without one."""
    sampling = Speculative(drafts=3, top_k=2, decoding=ALL, teacher_decoding=ALL)
    client = Recorded(llama(2))
    generated(llama(1), sampling, client)
    assert len(client.requests) >= 6
    other = Verification(llama(2), NUM_TOKENS)
    replayed = []
    for number in (0, 1, 1, 4, 5, 2, 3, 0):
        verified, expected = other.verify(client.requests[number]), client.verdicts[number]
        assert np.array_equal(verified.num_kept_b, expected.num_kept_b)
        assert np.array_equal(verified.replacement_b, expected.replacement_b)
        assert verified.request_id == expected.request_id
        replayed.append(verified.num_replayed)
    # Again from the start for what was read already; else only what is new to it.
    assert replayed == [0, 0, 1, 2, 0, 2, 0, 0]


def test_another_step_of_the_same_writer_starts_anew() -> None:
    sampling = Speculative(drafts=3, top_k=2, decoding=ALL, teacher_decoding=ALL)
    first = Recorded(llama(2))
    generated(llama(1), sampling, first)
    both = Verification(llama(2), NUM_TOKENS)
    both.verify(first.requests[0])
    others = tuple(prompt[::-1].copy() for prompt in first.requests[0].prompts)
    later = [replace(r, step=STEP + 1, prompts=others) for r in first.requests[:2]]
    expected = [Verification(llama(2), NUM_TOKENS).verify(request) for request in later]
    found = [both.verify(request) for request in (later[0], later[1])]
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.num_kept_b, other.num_kept_b)
        assert np.array_equal(one.replacement_b, other.replacement_b)
    assert [v.num_replayed for v in found] == [0, 0]
    # A writer of its own does not disturb it.
    both.verify(replace(first.requests[0], writer="other"))
    assert both.verify(first.requests[1]).num_replayed == 1  # back at an earlier step
    assert both.verify(first.requests[2]).num_replayed == 0


class Counted(nn.Module):
    """A model that counts its forwards, and the tokens of each."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.sizes: list[tuple[int, int]] = []
        model.register_forward_pre_hook(self._note, with_kwargs=True)
        self.model = model

    def _note(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self.sizes.append(tuple(kwargs["input_ids"].shape))


def plainly(model: Any, **changes: Any) -> GeneratedBatch:
    given: dict[str, Any] = {"decoding": ALL, "seeds_B": seeds_N(), "limits": LIMITS, "ends": ENDS}
    return write(model, NUM_TOKENS, PROMPTS, **given | changes)


def test_a_rank_that_is_done_makes_the_forwards_of_the_others() -> None:
    """As many for each round, and its text stays as it is."""
    counted = Counted(llama(1))
    alone = plainly(counted.model, num_drafts=3)
    forwards = len(counted.sizes)
    assert forwards == 3 * len(alone.rounds) and len(alone.rounds) > 1
    shown: list[bool] = []

    def until_nine_more(is_generating: bool) -> bool:
        shown.append(is_generating)
        return is_generating or shown.count(False) <= 9

    counted.sizes.clear()
    found = plainly(counted.model, num_drafts=3, is_any_rank_generating=until_nine_more)
    assert found.texts == alone.texts and found.has_ended == alone.has_ended
    assert len(found.rounds) == len(alone.rounds)
    assert shown == [True] * len(alone.rounds) + [False] * 10
    assert len(counted.sizes) == forwards + 9 * 3
    assert all(size[1] == 1 for size in counted.sizes)


def test_rows_that_are_done_are_no_longer_read() -> None:
    counted = Counted(llama(1))
    found = plainly(counted.model)
    longest = max(map(len, found.texts))
    going = [sum(len(text) > place for text in found.texts) for place in range(longest)]
    assert [size[0] for size in counted.sizes] == going and going[-1] < going[0]


def test_the_model_writes_as_evaluated_and_is_left_as_it_was() -> None:
    model = llama(1, attention_dropout=0.5)
    expected = plainly(model).texts
    for was_training in (True, False):
        model.train(was_training)
        assert plainly(model).texts == expected
        assert model.training is was_training
    model.train()

    def broken(drafted: Drafted) -> tuple[np.ndarray, np.ndarray]:
        raise ValueError("no verdict")

    with pytest.raises(ValueError, match="no verdict"):
        plainly(model, verify=broken)
    assert model.training


def test_without_a_verifier_nothing_is_replaced() -> None:
    found = plainly(llama(1), num_drafts=4)
    assert found.num_calls == 0
    assert found.num_tested == found.num_passed == sum(map(len, found.texts))
    assert found.texts == plainly(llama(1)).texts


def verdicts(*rounds: tuple[list[int], list[int]]) -> Any:
    """A judge with these answers."""
    waiting = [(np.array(kept), np.array(new)) for kept, new in rounds]

    def verify(drafted: Drafted) -> tuple[np.ndarray, np.ndarray]:
        assert len(drafted.rows_b) == len(waiting[0][0])
        return waiting.pop(0)

    return verify


@pytest.mark.parametrize(
    ("limit", "kept", "new", "length", "ended", "tested", "passed"),
    [
        (9, 3, -1, 3, False, 3, 3),  # all accepted, and it goes on
        (9, 1, 5, 2, False, 2, 1),  # one accepted, then the teacher's
        (9, 0, 5, 1, False, 1, 0),
        (9, 1, 0, 2, True, 2, 1),  # the teacher's token ends it
        (3, 3, -1, 3, False, 3, 3),  # exactly to the limit
        (2, 3, -1, 2, False, 2, 2),  # past the limit
        (2, 1, 5, 2, False, 2, 1),
        (2, 2, 5, 2, False, 2, 2),  # the teacher's token is past the limit
        (2, 1, 0, 2, True, 2, 1),  # ends at the limit
        (1, 1, 0, 1, False, 1, 1),  # would end past the limit
    ],
)
def test_what_stays_of_a_round(
    limit: int, kept: int, new: int, length: int, ended: bool, tested: int, passed: int
) -> None:
    model, seeds_B = llama(1), row_seeds(0, 0, np.array([5]))
    num_rounds = 1 if ended or length == limit else 2
    # A second round ends it at once.
    verify = verdicts(*[([kept], [new]), ([0], [0])][:num_rounds])
    found = write(model, NUM_TOKENS, [[3, 4]], [limit], (0,), seeds_B, GREEDY, 3, verify)
    ((*drafts,),) = write(model, NUM_TOKENS, [[3, 4]], [3], (), seeds_B, GREEDY).texts
    assert 0 not in drafts and 5 not in drafts
    first = ([*drafts[:kept], new] if new >= 0 else drafts[:kept])[:limit]
    assert len(first) == length
    more = num_rounds - 1
    assert found.texts == [first + [0] * more]
    assert found.has_ended == [ended or more == 1]
    assert (found.num_tested, found.num_passed) == (tested + more, passed)
    assert found.num_calls == num_rounds
    assert found.rounds[0].kept_b.tolist() == [min(kept + 1, 3)]


def test_an_accepted_end_token_ends_the_text_and_what_follows_is_not_tested() -> None:
    """Both limits: of the drafts, the second is an end token."""
    model, seeds_B = llama(1), row_seeds(0, 0, np.array([5]))
    ((first, end, third),) = write(model, NUM_TOKENS, [[2]], [3], (), seeds_B, ALL).texts
    assert end not in (first, third)
    for limit, text, ended in ((9, 2, True), (2, 2, True), (1, 1, False)):
        verify = verdicts(([3], [-1]))
        found = write(model, NUM_TOKENS, [[2]], [limit], (end,), seeds_B, ALL, 3, verify)
        assert found.texts == [[first, end][:text]] and found.has_ended == [ended]
        assert found.num_tested == found.num_passed == text


def test_a_share_of_a_round_counts_its_prompts_from_0() -> None:
    rows_b = np.array([1, 2, 4, 7])
    round_ = Drafted(
        (),
        rows_b,
        places_b=np.array([5, 6, 7, 8]),
        last_b=np.array([15, 16, 17, 18]),
        drafts_bG=np.arange(8).reshape(4, 2),
    )
    mine = round_.of(np.array([0, 2, 7, 9]))
    assert mine.rows_b.tolist() == [1, 2]
    assert mine.places_b.tolist() == [6, 8] and mine.last_b.tolist() == [16, 18]
    assert mine.drafts_bG.tolist() == [[2, 3], [6, 7]] and mine.past == ()


def test_teachers_draws_differ_from_the_students() -> None:
    """At the same seed and place, or a rejected draft would be drawn again by the same number."""
    places = np.zeros(len(ROWS), np.int64)
    assert not (uniforms(seeds_N(), places, STUDENT) == uniforms(seeds_N(), places, TEACHER)).any()
