"""Importance finds what matters, and says when it cannot know."""

from __future__ import annotations

import random

from distill.search.importance import importance
from distill.search.trials import Trial, Value

KEYS = ("student.size_mb", "objective.type", "seed")


def trials(num: int, noise: float = 0.0, status: str = "finished") -> list[Trial]:
    """Accuracy follows the size most, the objective a little, the seed not at all."""
    rng = random.Random(0)
    made = []
    for index in range(num):
        values: dict[str, Value] = {
            "student.size_mb": rng.random(),
            "objective.type": rng.choice(["kl", "jsd"]),
            "seed": rng.randrange(9),
        }
        accuracy = 0.5 + 0.3 * float(values["student.size_mb"])
        accuracy += 0.06 * (values["objective.type"] == "jsd")
        if noise:
            accuracy = noise * rng.random()
        made.append(Trial(str(index), status, values, {"eval.accuracy": accuracy}))  # type: ignore[arg-type]
    return made


def test_keys_are_ordered_by_what_they_do():
    found = importance(trials(40), KEYS, "eval.accuracy")
    assert list(found.keys) == list(KEYS)
    assert found.r2 is not None and found.r2 > 0.8
    assert found.keys["student.size_mb"][0] > 0.5
    assert abs(found.keys["seed"][0]) < 0.05


def test_noise_has_no_skill_and_no_important_key():
    found = importance(trials(40, noise=1.0), KEYS, "eval.accuracy")
    assert found.r2 is not None and found.r2 < 0.2
    assert all(mean < 0.2 for mean, _ in found.keys.values())


def test_the_same_trials_give_the_same_answer():
    some = trials(12)
    assert importance(some, KEYS, "eval.accuracy") == importance(some, KEYS, "eval.accuracy")


def test_too_little_to_say_is_said():
    few = trials(7) + trials(20, status="stopped")
    assert "7 finished trials" in importance(few, KEYS, "eval.accuracy").reason
    flat = [Trial(str(i), "finished", {"seed": i}, {"eval.accuracy": 0.5}) for i in range(9)]
    assert "the same in all 9" in importance(flat, ["seed"], "eval.accuracy").reason
    assert "differs" in importance(trials(9), ["kd.alpha"], "eval.accuracy").reason
    assert importance(few, KEYS, "eval.accuracy").keys == {}
