"""Sampling by drafts and verdicts, against plain loops without any cache."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.errors import TrainingError
from distill.sampling import Decoding
from distill.sampling.draw import TEACHER, row_seeds, uniforms
from distill.sampling.generation import Drafted, GeneratedBatch, write
from distill.sampling.records import DraftRequest
from distill.sampling.verification import Verification
from tests.toys_language import NUM_TOKENS, llama

PROMPTS = [[3, 4, 5], [6], [7, 8, 9, 10, 11], [2, 3]]
SEEDS = row_seeds(0, 7, np.arange(len(PROMPTS)))
LIMITS = [20, 9, 16, 1]
ENDS = (0,)
GREEDY = Decoding(temperature=0)
ALL = Decoding()


def greedy_without_cache(model, prompt, limit):
    ids = list(prompt)
    for _ in range(limit):
        logits_V = model(input_ids=torch.tensor([ids])).logits[0, -1, :NUM_TOKENS]
        ids.append(int(logits_V.argmax()))
        if ids[-1] in ENDS:
            break
    return ids[len(prompt) :]


class JudgeOf:
    """Speaks to Judging as a client does; ``loses`` all caches before each round if told to."""

    def __init__(self, teacher, top_k, decoding, loses=False, nucleus=None):
        self.teacher, self.top_k, self.decoding, self.loses = teacher, top_k, decoding, loses
        self.nucleus = nucleus
        self.judging = Verification(teacher, NUM_TOKENS)
        self.num_replayed = 0
        self.verdicts = []

    def __call__(self, drafted: Drafted):
        if self.loses:
            self.judging = Verification(self.teacher, NUM_TOKENS)
        request = DraftRequest(
            "r",
            "writer",
            0,
            tuple(np.array(p) for p in PROMPTS),
            drafted.past,
            drafted.rows_b,
            drafted.last_b,
            drafted.drafts_bG,
            uniforms(SEEDS[drafted.rows_b], drafted.places_b, TEACHER),
            self.top_k,
            self.nucleus,
            self.decoding,
        )
        verified = self.judging.verify(request)
        self.num_replayed += verified.num_replayed
        self.verdicts.append(verified)
        return verified.num_kept_b, verified.replacement_b


def generated(model, decoding=ALL, verify=None, num_drafts=1) -> GeneratedBatch:
    return write(model, NUM_TOKENS, PROMPTS, LIMITS, ENDS, SEEDS, decoding, num_drafts, verify)


def test_greedy_writing_is_that_of_a_loop_without_a_cache():
    model = llama(1)
    with torch.no_grad():
        expected = [greedy_without_cache(model, p, n) for p, n in zip(PROMPTS, LIMITS, strict=True)]
    found = generated(model, GREEDY)
    assert found.texts == expected
    assert found.has_ended == [text[-1] in ENDS for text in expected]
    assert len({len(text) for text in expected}) > 1


@pytest.mark.parametrize("num_drafts", [1, 3, 5])
def test_a_judge_that_ranks_all_tokens_leaves_the_students_own_text(num_drafts):
    student, teacher = llama(1), llama(2)
    own = generated(student)
    verified = generated(
        student, verify=JudgeOf(teacher, NUM_TOKENS, GREEDY), num_drafts=num_drafts
    )
    assert verified.texts == own.texts and verified.has_ended == own.has_ended
    assert verified.num_passed == verified.num_tested == sum(map(len, own.texts))


def test_top_1_and_a_greedy_teacher_give_the_teachers_greedy_text():
    student, teacher = llama(1), llama(2)
    verified = generated(student, verify=JudgeOf(teacher, 1, GREEDY), num_drafts=3)
    assert verified.texts == generated(teacher, GREEDY).texts
    assert 0 < verified.num_passed < verified.num_tested


def test_caches_lost_before_every_round_change_nothing():
    student, teacher = llama(1), llama(2)
    kept = JudgeOf(teacher, 2, Decoding())
    lost = JudgeOf(teacher, 2, Decoding(), loses=True)
    assert generated(student, verify=kept, num_drafts=4).texts == (
        generated(student, verify=lost, num_drafts=4).texts
    )
    for one, other in zip(kept.verdicts, lost.verdicts, strict=True):
        assert np.array_equal(one.num_kept_b, other.num_kept_b)
        assert np.array_equal(one.replacement_b, other.replacement_b)
    assert kept.num_replayed == 0 and lost.num_replayed > 3


def test_what_is_drawn_does_not_depend_on_who_shares_the_batch():
    model = llama(1)
    together = generated(model)
    for row, prompt in enumerate(PROMPTS):
        alone = write(
            model, NUM_TOKENS, [prompt], [LIMITS[row]], ENDS, SEEDS[row : row + 1], Decoding()
        )
        assert alone.texts[0] == together.texts[row]


def test_long_writing_closes_its_gaps():
    student, teacher = llama(1), llama(2)
    verify = JudgeOf(teacher, 1, GREEDY)
    limits = [55, 50, 40, 55]
    found = write(student, NUM_TOKENS, PROMPTS, limits, (), SEEDS, Decoding(), 5, verify)
    with torch.no_grad():
        expected = write(teacher, NUM_TOKENS, PROMPTS, limits, (), SEEDS, GREEDY)
    assert found.texts == expected.texts
    assert all(len(t) == n for t, n in zip(found.texts, limits, strict=True))


def test_a_judge_keeps_one_cache_for_each_writer():
    verify = JudgeOf(llama(1), 3, ALL)
    for _ in range(3):
        generated(llama(2), ALL, verify, num_drafts=2)
    assert list(verify.judging._sessions) == ["writer"]


def test_text_of_a_model_whose_logits_are_no_numbers_is_refused():
    model = llama(1)
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(TrainingError, match="NaN or infinity"):
        generated(model, GREEDY)
