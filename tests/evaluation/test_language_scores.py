"""Token scores against their definitions, position by position in float64."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from distill.evaluation.language import (
    TokenScores,
    jsd,
    score_chunk,
)
from distill.records import UNLABELLED

N, V = 40, 13


def data(seed=0):
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(N, V, generator=generator) * 3
    teacher = torch.log_softmax(torch.randn(N, V, generator=generator) * 3, dim=-1)
    return student, torch.randint(0, V, (N,), generator=generator), teacher


def test_scores_are_their_definitions():
    student, labels, teacher = data()
    scores = score_chunk(student, labels, teacher)
    probs = np.exp(student.double().numpy())
    probs /= probs.sum(1, keepdims=True)
    of_labels = probs[np.arange(N), labels.numpy()]
    assert scores.perplexity == pytest.approx(math.exp(-np.log(of_labels).mean()), rel=1e-5)
    assert scores.accuracy == np.mean(probs.argmax(1) == labels.numpy())
    assert scores.agreement == np.mean(probs.argmax(1) == teacher.numpy().argmax(1))
    expected = jensenshannon(probs, teacher.double().exp().numpy(), axis=1) ** 2  # its root
    assert scores.jsd == pytest.approx(expected.mean(), rel=1e-5)


def test_chunks_and_ranks_add_up():
    student, labels, teacher = data()
    whole = score_chunk(student, labels, teacher)
    parts = [
        score_chunk(student[i : i + 7], labels[i : i + 7], teacher[i : i + 7])
        for i in range(0, N, 7)
    ]
    added = sum(parts, TokenScores())
    reduced = TokenScores.of(torch.stack([part.sums() for part in parts]).sum(0))
    for total in (added, reduced):
        assert total.sums().tolist() == pytest.approx(whole.sums().tolist(), rel=1e-6)


def test_a_position_without_a_label_counts_for_the_teachers_alone():
    student, labels, teacher = data()
    labels[::2] = UNLABELLED
    scores = score_chunk(student, labels, teacher)
    labelled = score_chunk(student[1::2], labels[1::2])
    assert scores.num_labelled == N / 2
    assert scores.perplexity == pytest.approx(labelled.perplexity)
    assert scores.accuracy == labelled.accuracy
    assert scores.num_answered == N
    assert (labelled.agreement, labelled.jsd) == (None, None)


def test_padded_columns_count_in_the_perplexity_and_not_in_the_comparison():
    student, labels, teacher = data()
    padded = torch.cat([student, torch.full((N, 3), 2.0)], dim=1)
    plain, wide = score_chunk(student, labels, teacher), score_chunk(padded, labels, teacher)
    assert wide.perplexity > plain.perplexity
    assert wide.jsd == pytest.approx(plain.jsd, rel=1e-5)
    assert wide.agreement == plain.agreement


def test_a_student_that_is_its_teacher_is_at_distance_0():
    student, labels, _ = data()
    scores = score_chunk(student, labels, torch.log_softmax(student, -1))
    assert scores.agreement == 1
    assert scores.jsd == pytest.approx(0, abs=1e-6)


def test_disjoint_distributions_are_at_distance_log_2():
    one, two = torch.tensor([[0.0, -math.inf]]), torch.tensor([[-math.inf, 0.0]])
    assert jsd(one, two).item() == pytest.approx(math.log(2))
    assert jsd(one, one).item() == 0


def test_a_hopeless_model_has_an_infinite_perplexity():
    assert TokenScores(1.0, 1000.0).perplexity == math.inf
