"""The configuration memory: which past tasks are near, and what is proposed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.search.configuration_memory import (
    AXES,
    KEYS,
    ConfigurationMemory,
    Experience,
)

DEFAULTS = {
    "kd.temperature": 2.0,
    "kd.alpha": 0.5,
    "optimizer.lr": 1e-3,
    "optimizer.weight_decay": 0.01,
}
RANGES = {axis.key: (axis.low, axis.high) for axis in AXES}
EPSILON = "chain.epsilon"


def values(temperature: float = 4.0, alpha: float = 0.5, lr: float = 1e-3, wd: float = 1e-4):
    return dict(zip(DEFAULTS, (temperature, alpha, lr, wd), strict=True))


def past(task: str, a: float, b: float, quality: float = 0.5, **changes: float) -> Experience:
    """A run of a task with two meta-features."""
    return Experience(task, {"meta.a": a, "meta.b": b}, values(**changes), quality)


def test_the_ranges_are_the_drafts() -> None:
    assert RANGES == {
        "kd.temperature": (2, 8),
        "kd.alpha": (0, 1),
        "optimizer.lr": (1e-5, 1e-2),
        "optimizer.weight_decay": (1e-6, 1e-3),
        "chain.epsilon": (0.005, 0.05),
    }
    assert tuple(RANGES) == KEYS


def test_an_empty_memory_proposes_the_defaults_and_says_so() -> None:
    proposal = ConfigurationMemory([]).propose({"meta.a": 1.0}, DEFAULTS)
    assert proposal.values == DEFAULTS  # as they are: weight decay 0.01 is outside the range
    assert (proposal.model, proposal.neighbours) == ("defaults", ())
    assert "no past run" in proposal.why


def test_one_past_experiment_is_proposed() -> None:
    proposal = ConfigurationMemory([past("t", 1, 2, temperature=3)]).propose(
        {"meta.a": 9.0, "meta.b": 0.0}, DEFAULTS
    )
    assert proposal.values == pytest.approx(values(temperature=3))
    assert [n.experience.task for n in proposal.neighbours] == ["t"]


def test_the_five_nearest_by_cosine_are_averaged_each_on_its_scale() -> None:
    # Mean 0 and deviation 1 already, so the standardised features are these.
    angles = np.arange(8) * math.pi / 4
    points = math.sqrt(2) * np.stack([np.cos(angles), np.sin(angles)], 1)
    learned = [
        past(f"task {i}", *point, temperature=2 + 0.5 * i, alpha=i / 10, lr=10 ** (-5 + i / 3))
        for i, point in enumerate(points)
    ]
    asked = {"meta.a": 0.3 * math.cos(0.1), "meta.b": 0.3 * math.sin(0.1)}  # any length
    proposal = ConfigurationMemory(learned).propose(asked, DEFAULTS)
    assert proposal.model == "nearest"
    assert [n.experience.task for n in proposal.neighbours] == [
        f"task {i}" for i in (0, 1, 7, 2, 6)
    ]
    cosines = [math.cos(angle - 0.1) for angle in angles[[0, 1, 7, 2, 6]]]
    assert [n.similarity for n in proposal.neighbours] == pytest.approx(cosines)
    mean_i = (0 + 1 + 7 + 2 + 6) / 5
    expected = values(2 + 0.5 * mean_i, mean_i / 10, 10 ** (-5 + mean_i / 3))
    assert proposal.values == pytest.approx(expected)
    assert all(n.experience.task in proposal.why for n in proposal.neighbours)


def test_features_of_any_unit_weigh_the_same() -> None:
    rng = np.random.default_rng(0)
    learned = [past(f"task {i}", *rng.normal(size=2), alpha=i / 20) for i in range(20)]
    rescaled = [
        Experience(
            e.task, {"meta.a": 1000 * e.meta["meta.a"] + 7, "meta.b": e.meta["meta.b"]}, e.values, 1
        )
        for e in learned
    ]
    before = ConfigurationMemory(learned).propose({"meta.a": 0.4, "meta.b": -0.2}, DEFAULTS)
    after = ConfigurationMemory(rescaled).propose({"meta.a": 407.0, "meta.b": -0.2}, DEFAULTS)
    assert before.values == pytest.approx(after.values)


def test_a_feature_that_never_varied_decides_nothing() -> None:
    learned = [past(f"task {i}", i, 0.1, alpha=i / 10) for i in range(8)]
    near = ConfigurationMemory(learned).propose({"meta.a": 7.0, "meta.b": 0.1}, DEFAULTS)
    far = ConfigurationMemory(learned).propose({"meta.a": 7.0, "meta.b": 1e6}, DEFAULTS)
    assert near == far


def test_a_task_counts_once_by_the_mean_of_its_best_tenth() -> None:
    runs = [past("many", 0, 0, quality=q / 30, alpha=q / 30) for q in range(30)]
    memory = ConfigurationMemory([*runs, past("one", 1, 1, quality=0.01, alpha=0.1)])
    many, one = memory.experiments
    assert (many.task, one.task) == ("many", "one")
    assert many.values["kd.alpha"] == pytest.approx((29 + 28 + 27) / 90)
    assert many.quality == pytest.approx((29 + 28 + 27) / 90)
    assert one.values["kd.alpha"] == pytest.approx(0.1)


def test_runs_that_are_as_good_count_as_well() -> None:
    qualities = [0.9, 0.8, 0.8, 0.8, *[0.1] * 16]  # a tenth: the first two
    runs = [past("t", 0, 0, quality=q, alpha=i / 20) for i, q in enumerate(qualities)]
    (experiment,) = ConfigurationMemory(runs).experiments
    assert experiment.values["kd.alpha"] == pytest.approx((0 + 1 + 2 + 3) / 80)


def test_the_order_of_the_runs_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    runs = [
        past(f"task {i % 7}", *rng.normal(size=2), quality=float(rng.integers(3)), alpha=i / 100)
        for i in range(100)
    ]
    asked = {"meta.a": 0.1, "meta.b": 0.2}
    shuffled = [runs[i] for i in rng.permutation(100)]
    assert ConfigurationMemory(runs).propose(asked, DEFAULTS) == ConfigurationMemory(
        shuffled
    ).propose(asked, DEFAULTS)


def test_a_value_out_of_range_counts_as_the_ranges_edge() -> None:
    proposal = ConfigurationMemory([past("t", 0, 0, temperature=20, wd=0.0, lr=1.0)]).propose(
        {"meta.a": 0.0, "meta.b": 0.0}, DEFAULTS
    )
    assert proposal.values == pytest.approx(values(temperature=8, wd=1e-6, lr=1e-2))


def test_a_past_task_counts_for_the_keys_that_it_has() -> None:
    other_feature = Experience("other", {"meta.c": 0.0}, values(temperature=8), 1.0)
    with_alpha = Experience("alpha", {"meta.a": 0.0, "meta.b": 0.0}, {"kd.alpha": 1.0}, 1.0)
    memory = ConfigurationMemory([other_feature, with_alpha, past("t", 0, 0, temperature=3)])
    present = {"meta.a": 0.0, "meta.b": 0.0}
    proposal = memory.propose(present, DEFAULTS)
    assert proposal.values == pytest.approx(values(temperature=3) | {"kd.alpha": 0.75})
    assert memory.propose(present, {"kd.alpha": 0.0}).values == {"kd.alpha": pytest.approx(0.75)}


def test_epsilon_is_proposed_by_runs_with_a_chain_alone() -> None:
    def chained(task: str, epsilon: float, **changes: float) -> Experience:
        one = past(task, 0, 0, **changes)
        return Experience(task, one.meta, one.values | {EPSILON: epsilon}, 0.5)

    present, defaults = {"meta.a": 0.0, "meta.b": 0.0}, DEFAULTS | {EPSILON: 0.01}
    plain = past("plain", 1, 1, temperature=2)
    without = ConfigurationMemory([plain]).propose(present, defaults)
    assert without.values == pytest.approx(values(temperature=2) | {EPSILON: 0.01})
    memory = ConfigurationMemory(
        [plain, chained("c", 0.01, temperature=4), chained("d", 0.04, temperature=6)]
    )
    proposal = memory.propose(present, defaults)
    # On a log scale, and of two tasks; the temperature is the mean of all three.
    assert proposal.values == pytest.approx(values(temperature=4) | {EPSILON: 0.02})
    assert "chain.epsilon: mean of the 2 nearest" in proposal.why
    assert EPSILON not in memory.propose(present, DEFAULTS).values
    # Of a task with both, the best run with a chain counts for epsilon, however good the others.
    better = past("c", 0, 0, quality=0.9)
    mixed = ConfigurationMemory([better, chained("c", 0.01)]).propose(present, defaults)
    assert mixed.values == pytest.approx(values() | {EPSILON: 0.01})
    assert ConfigurationMemory([better, chained("c", 0.01)]).mean(defaults)[
        EPSILON
    ] == pytest.approx(0.01)


def test_runs_of_an_older_version_are_compared_by_what_both_recorded() -> None:
    def task(name: str, temperature: float, **meta: float) -> Experience:
        named = {f"meta.{key}": value for key, value in meta.items()}
        return Experience(name, named, values(temperature), 0.5)

    new = [task(f"new {i}", 2.0, a=1.0, b=-1.0, c=i % 2) for i in range(5)]
    old = [task(f"old {i}", 8.0, a=-1.0, b=1.0) for i in range(5)]
    memory = ConfigurationMemory([*new, *old])
    # Near the old ones in all that they recorded; the new ones differ in c too.
    proposal = memory.propose({"meta.a": -1.0, "meta.b": 1.0, "meta.c": -1.0}, DEFAULTS)
    assert proposal.values["kd.temperature"] == 8
    assert [n.similarity for n in proposal.neighbours] == pytest.approx([1.0] * 5)
    assert "compared without meta.c, which some of them lack" in proposal.why
    near_new = memory.propose({"meta.a": 1.0, "meta.b": -1.0, "meta.c": 1.0}, DEFAULTS)
    assert near_new.values["kd.temperature"] == 2 and "lack" not in near_new.why


def test_a_one_hot_code_weighs_as_much_as_one_feature() -> None:
    def task(name: str, size: float, is_text: float, temperature: float = 4) -> Experience:
        code = {"meta.student_family.transformer": is_text, "meta.student_family.mlp": 1 - is_text}
        return Experience(name, {"meta.a": size} | code, values(temperature), 0.5)

    memory = ConfigurationMemory(
        [task("a", 1, 1), task("b", -1, 1), task("c", 1, 0), task("d", -1, 0)]
    )
    proposal = memory.propose(task("", 1, 1).meta, DEFAULTS)
    similar = {n.experience.task: n.similarity for n in proposal.neighbours}
    # Half of what they are compared by is the size, half the family.
    assert similar == pytest.approx({"a": 1, "b": 0, "c": 0, "d": -1})


def history(num_tasks: int, num_runs: int, seed: int = 0) -> list[Experience]:
    """Tasks whose best temperature is 5 + 2a, whatever the noise feature b, with runs around it
    that are the worse the farther they are. Few runs are near, as in a random search."""
    rng = np.random.default_rng(seed)
    runs = []
    for task in range(num_tasks):
        a, b = rng.uniform(-1, 1, 2)
        for _ in range(num_runs):
            temperature = rng.uniform(2, 8)
            quality = -abs(temperature - (5 + 2 * a))
            runs.append(past(f"task {task}", a, b, quality, temperature=temperature))
    return runs


def test_runs_count_towards_the_fifty_and_tasks_towards_the_five() -> None:
    present = {"meta.a": 0.5, "meta.b": 0.0}

    def model(num_tasks: int, num_runs: int) -> str:
        return ConfigurationMemory(history(num_tasks, num_runs)).propose(present, DEFAULTS).model

    assert model(5, 10) == "nearest"  # 50 are not more than 50
    assert model(5, 11) == "boosting"
    assert model(4, 100) == "nearest"
    assert model(51, 1) == "boosting"


def test_boosting_finds_a_rule_that_means_cannot() -> None:
    memory = ConfigurationMemory(history(30, 30))
    one = {"kd.temperature": 2.0}  # each key has a model of its own
    for a in (-0.8, -0.3, 0.4, 0.8):
        present = {"meta.a": a, "meta.b": 0.0}
        proposal = memory.propose(present, one, seed=3)
        assert proposal.model == "boosting" and "30 past tasks (900 runs)" in proposal.why
        assert proposal.values["kd.temperature"] == pytest.approx(5 + 2 * a, abs=0.45)
        assert memory.propose(present, one, seed=3) == proposal
    # All runs of a task average 5, and so does the mean of all tasks' best.
    assert memory.mean(DEFAULTS)["kd.temperature"] == pytest.approx(5, abs=0.45)


def test_a_task_with_many_runs_weighs_as_much_as_one_with_few() -> None:
    few = [past(f"few {i}", 0, 0, temperature=2) for i in range(5)]
    many = [past("many", 0, 0, temperature=8) for _ in range(995)]
    proposal = ConfigurationMemory([*few, *many]).propose({"meta.a": 0.0, "meta.b": 0.0}, DEFAULTS)
    assert proposal.model == "boosting"
    assert proposal.values["kd.temperature"] == pytest.approx(3)  # (5·2 + 8) / 6


def test_boosting_uses_the_features_that_all_runs_have() -> None:
    runs = history(6, 10)
    old = [Experience("old", {"meta.a": 0.9}, values(temperature=6.8), 0.0)]
    proposal = ConfigurationMemory([*runs, *old]).propose({"meta.a": 0.9, "meta.b": 0.0}, DEFAULTS)
    assert proposal.model == "boosting" and "without meta.b" in proposal.why
    assert proposal.values["kd.temperature"] == pytest.approx(6.8, abs=0.3)


def test_the_control_is_the_mean_of_all_past_tasks() -> None:
    runs = [past("many", 0, 0, temperature=2) for _ in range(9)] + [past("one", 5, 5, lr=1e-5)]
    mean = ConfigurationMemory(runs).mean(DEFAULTS | {EPSILON: 0.01})
    assert mean == pytest.approx(values(temperature=3, lr=1e-4) | {EPSILON: 0.01})
    assert ConfigurationMemory([]).mean(DEFAULTS) == DEFAULTS


@given(
    st.lists(
        st.tuples(st.integers(0, 60), *[st.floats(-1e6, 1e6)] * 3, *[st.floats(0, 1e3)] * 4),
        max_size=70,
    )
)
def test_a_proposal_is_always_finite_and_in_range(runs: list[tuple[float, ...]]) -> None:
    memory = ConfigurationMemory(
        Experience(f"t{task}", {"meta.mean": a, "meta.b": b}, values(t, abs(alpha), lr, wd), q)
        for task, a, b, q, t, alpha, lr, wd in runs
    )
    proposal = memory.propose({"meta.mean": 1e5, "meta.b": 1.0}, values(lr=1e-4))
    assert proposal.values.keys() == DEFAULTS.keys()
    for key, value in proposal.values.items():
        low, high = RANGES[key]
        assert low <= value <= high
