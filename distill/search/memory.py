"""Configuration memory: what worked on the most similar past tasks (HPM-KD, components 1 and 6).

arXiv 2512.09886 leaves several things open. [paper]: the hyper-parameters and their ranges, the
mean of 5 neighbours by cosine, gradient boosting beyond 50 past experiments, a short validation
run and local refinement. [ours]: what a past experiment is, how meta-features are scaled, on which
scale values are averaged, when a proposal is poor, how it is refined.

Shape suffixes: E past experiments, F meta-features.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

NUM_NEIGHBOURS = 5
"""[paper]"""
BOOST_BEYOND = 50
"""Past experiments beyond which regressors take over [paper]."""
BEST_SHARE = 0.1
"""Of a task's runs, those that count as what worked [ours]; see :class:`Memory`."""


@dataclass(frozen=True)
class Axis:
    """One hyper-parameter: its range [paper], the scale it is averaged on and its step [ours]."""

    key: str
    low: float
    high: float
    is_log: bool
    step: float
    """Standard deviation of a refinement; on the log scale in nats (0.5: a factor of 1.65)."""

    def coordinate(self, value: float) -> float:
        """On the axis' own scale, a value outside the range from its edge."""
        value = min(max(value, self.low), self.high)
        return math.log(value) if self.is_log else value

    def value(self, coordinate: float) -> float:
        """In the range."""
        value = math.exp(coordinate) if self.is_log else coordinate
        return float(min(max(value, self.low), self.high))


# alpha is averaged as it is: a logit would let one pure α of 0 or 1 outweigh all others.
AXES = (
    Axis("kd.temperature", 2.0, 8.0, is_log=False, step=1.0),
    Axis("kd.alpha", 0.0, 1.0, is_log=False, step=0.1),
    Axis("optimizer.lr", 1e-5, 1e-2, is_log=True, step=0.5),
    Axis("optimizer.weight_decay", 1e-6, 1e-3, is_log=True, step=1.0),
)
KEYS = tuple(axis.key for axis in AXES)

# Spread over orders of magnitude, or unbounded: one wide table must not set the scale of all.
_COMPRESSED = {
    *("meta.n", "meta.d", "meta.classes", "meta.imbalance", "meta.compression"),
    *("meta.mean", "meta.variance", "meta.skewness", "meta.kurtosis"),
}


@dataclass(frozen=True)
class Experience:
    """One past run, or what the best runs of one task have in common."""

    task: str
    """What makes qualities comparable: the data's fingerprint, teachers and student."""
    meta: dict[str, float]
    """``meta.*``, finite; see distill/search/meta.py."""
    values: dict[str, float]
    """Hyper-parameters by key."""
    quality: float
    """Higher is better, within a task."""


@dataclass(frozen=True)
class Neighbour:
    """A past experiment that a proposal is the mean of."""

    experience: Experience
    similarity: float
    """Cosine of the standardised meta-features, in [−1, 1]."""


@dataclass(frozen=True)
class Proposal:
    """A configuration to begin with, and where it comes from."""

    values: dict[str, float]
    """For each key of the defaults."""
    neighbours: tuple[Neighbour, ...]
    """Nearest first; empty unless ``model`` is nearest."""
    model: Literal["defaults", "nearest", "boosting"]
    why: str
    """One sentence for people."""


class Memory:
    """Past experiments, one a task: the mean of its best runs on each axis' own scale.

    The best tenth of its runs, at least one, and all that equal the last of these: the best of many
    noisy runs is lucky, their mean less so, and a small validation split knows many ties. Runs
    whose meta-features or values are not all finite must have been left out.
    """

    def __init__(self, experiences: Iterable[Experience]) -> None:
        runs: dict[str, list[Experience]] = defaultdict(list)
        for experience in experiences:
            runs[experience.task].append(experience)
        self.experiments = tuple(_best(runs[task]) for task in sorted(runs))

    def propose(
        self, meta: Mapping[str, float], defaults: Mapping[str, float], seed: int = 0
    ) -> Proposal:
        """Values for the keys of ``defaults`` (some of :data:`KEYS`), within the ranges [paper].

        Past experiments that lack one of these keys or meta-features have no say. Without any, the
        defaults as they are. A function of its arguments: ``seed`` is the regressors'.
        """
        assert set(defaults) <= set(KEYS), set(defaults) - set(KEYS)
        axes = [axis for axis in AXES if axis.key in defaults]
        usable = [e for e in self.experiments if meta.keys() <= e.meta.keys()]
        usable = [e for e in usable if defaults.keys() <= e.values.keys()]
        if not usable or not axes:
            why = "there is no past experiment with these keys: the defaults are proposed"
            return Proposal(dict(defaults), (), "defaults", why)
        past_EF, asked_F = _standardised(usable, meta)
        if len(usable) > BOOST_BEYOND:
            values = {a.key: _boosted(a, past_EF, asked_F, usable, seed) for a in axes}
            why = f"gradient-boosted regressors over {len(usable)} past experiments"
            return Proposal(values, (), "boosting", why)
        similarity_E = _cosines(past_EF, asked_F)
        nearest = np.argsort(-similarity_E, kind="stable")[:NUM_NEIGHBOURS]
        neighbours = tuple(Neighbour(usable[i], float(similarity_E[i])) for i in nearest)
        values = {a.key: _mean(a, [n.experience for n in neighbours]) for a in axes}
        told = ", ".join(f"{n.experience.task} ({n.similarity:.2f})" for n in neighbours)
        why = (
            f"mean of the {len(neighbours)} nearest of {len(usable)} past experiments, "
            f"by cosine of their meta-features: {told}"
        )
        return Proposal(values, neighbours, "nearest", why)


@dataclass(frozen=True)
class Verdict:
    """What the brief evaluation of a proposal came to."""

    is_poor: bool
    why: str


def judge(proposed: float, default: float) -> Verdict:
    """Whether to refine a proposal [ours]: poor if its brief run is worse than the defaults' own.

    Qualities (higher is better) of two equally brief runs on validation. A proposal whose run
    failed (not finite) is poor; one that equals the defaults is not.
    """
    told = f"{proposed:.4g} in the brief run, the defaults {default:.4g}"
    if not math.isfinite(proposed):
        return Verdict(True, f"the proposal's brief run has no finite quality ({proposed})")
    if math.isfinite(default) and proposed < default:
        return Verdict(True, f"the proposal is worse than the defaults: {told}")
    return Verdict(False, f"the proposal is no worse than the defaults: {told}")


def refinements(proposal: Proposal, num: int, seed: int) -> list[dict[str, float]]:
    """``num`` configurations near the proposal, each within the ranges [ours].

    Each axis moves by a normal step: additive for T and α, so log-normal for lr and weight decay.
    The same seed gives the same ones, and a larger ``num`` only adds to them.
    """
    rng = np.random.default_rng(seed)
    axes = [axis for axis in AXES if axis.key in proposal.values]

    def moved(axis: Axis) -> float:
        return axis.value(axis.coordinate(proposal.values[axis.key]) + axis.step * rng.normal())

    return [{axis.key: moved(axis) for axis in axes} for _ in range(num)]


def _best(runs: list[Experience]) -> Experience:
    """One past experiment out of a task's runs."""
    # In an order of their own: sums must not depend on how a store lists runs.
    ranked = sorted(runs, key=lambda run: (-run.quality, sorted(run.values.items())))
    last = ranked[math.ceil(BEST_SHARE * len(runs)) - 1]
    best = [run for run in ranked if run.quality >= last.quality]
    values = {a.key: _mean(a, best) for a in AXES if all(a.key in run.values for run in best)}
    meta = {
        name: float(np.mean([run.meta[name] for run in best]))
        for name in best[0].meta
        if all(name in run.meta for run in best)
    }
    quality = float(np.mean([run.quality for run in best]))
    return Experience(best[0].task, meta, values, quality)


def _mean(axis: Axis, experiences: list[Experience]) -> float:
    return axis.value(float(np.mean([axis.coordinate(e.values[axis.key]) for e in experiences])))


def _standardised(
    past: list[Experience], meta: Mapping[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    """[E, F] and [F]: mean 0 and deviation 1 over the past; what never varied there is 0."""
    names = sorted(meta)
    past_EF = np.array([[_compressed(name, e.meta[name]) for name in names] for e in past])
    asked_F = np.array([_compressed(name, meta[name]) for name in names])
    mean_F, deviation_F = past_EF.mean(0), past_EF.std(0)
    varies_F = deviation_F > 1e-9 * (1 + np.abs(mean_F))
    scale_F = np.where(varies_F, deviation_F, 1.0)
    return (past_EF - mean_F) / scale_F * varies_F, (asked_F - mean_F) / scale_F * varies_F


def _compressed(name: str, value: float) -> float:
    """sign(x) · log10(1 + |x|) of what spreads over orders of magnitude."""
    return math.copysign(math.log10(1 + abs(value)), value) if name in _COMPRESSED else value


def _cosines(past_EF: np.ndarray, asked_F: np.ndarray) -> np.ndarray:
    """[E]; 0 where a vector is 0, such as that of the only past experiment."""
    lengths_E = np.linalg.norm(past_EF, axis=1) * np.linalg.norm(asked_F)
    return np.divide(past_EF @ asked_F, lengths_E, out=np.zeros(len(past_EF)), where=lengths_E > 0)


def _boosted(
    axis: Axis, past_EF: np.ndarray, asked_F: np.ndarray, past: list[Experience], seed: int
) -> float:
    from sklearn.ensemble import GradientBoostingRegressor

    model = GradientBoostingRegressor(random_state=seed)
    model.fit(past_EF, [axis.coordinate(e.values[axis.key]) for e in past])
    return axis.value(float(model.predict(asked_F[None])[0]))
