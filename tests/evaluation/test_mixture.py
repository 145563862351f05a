"""A mixture of experts answers as its aggregation says, and asks nobody else."""

from __future__ import annotations

import numpy as np
import pytest

from distill.aggregation import OracleDomain, Routed, Single, UniformMean
from distill.evaluation.classifiers import ExpertEnsemble, probs_of
from distill.evaluation.samples import Sample
from tests.evaluation.toy_classifiers import Words

SAMPLES = [
    Sample(0, 1, "left", "west gadget"),
    Sample(1, 0, "right", "east gadget"),
    Sample(2, 1, "right", "east lever"),
]


@pytest.fixture
def experts() -> dict[str, Words]:
    return {"left": Words({"gadget": 2.0}), "right": Words({"gadget": -1.0, "lever": 1.0})}


class Router(Words):
    label_names = ("left", "right")


def test_routed_asks_the_first_choice_alone(experts: dict[str, Words]) -> None:
    router = Router({"east": 5.0, "west": -5.0})
    mixture = ExpertEnsemble("mix", experts, Routed(k=1), router)
    logits_BC = mixture.logits(SAMPLES)
    np.testing.assert_allclose(logits_BC[:, 1] - logits_BC[:, 0], [2.0, -1.0, 1.0], rtol=1e-5)
    assert experts["left"].asked == ["west gadget"]
    assert experts["right"].asked == ["east gadget", "east lever"]


def test_the_oracle_goes_by_the_domain_and_single_by_its_name(experts: dict[str, Words]) -> None:
    logits_BC = ExpertEnsemble("mix", experts, OracleDomain()).logits(SAMPLES)
    np.testing.assert_allclose(logits_BC[:, 1] - logits_BC[:, 0], [2.0, -1.0, 1.0], rtol=1e-5)
    assert len(experts["left"].asked) == 1
    alone = ExpertEnsemble("mix", experts, Single(teacher="right")).logits(SAMPLES)
    np.testing.assert_allclose(alone[:, 1] - alone[:, 0], [-1.0, -1.0, 1.0], rtol=1e-5)
    assert len(experts["left"].asked) == 1


def test_the_uniform_mean_is_of_logits_or_of_probabilities(experts: dict[str, Words]) -> None:
    logits_BC = ExpertEnsemble("mix", experts, UniformMean()).logits(SAMPLES)
    np.testing.assert_allclose(logits_BC[:, 1] - logits_BC[:, 0], [0.5, 0.5, 0.5], rtol=1e-5)
    mixed = probs_of(ExpertEnsemble("mix", experts, UniformMean(mix="probabilities")), SAMPLES)
    own = [probs_of(expert, SAMPLES) for expert in experts.values()]
    np.testing.assert_allclose(mixed, np.mean(own, axis=0), rtol=1e-5)
