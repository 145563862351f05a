"""Configuration memory: what worked on the most similar past tasks (HPM-KD, components 1 and 6).

arXiv 2512.09886. [draft]: the hyper-parameters and their ranges, gradient boosting beyond 50 past
experiments, before that the mean of the 5 nearest by cosine, a short validation run and its
refinement (refine.py). [ours]: what a past experiment is, how meta-features are scaled and compared
where an older version recorded fewer, on which scale values are averaged, what the boosting is
fitted on.

Shape suffixes: E past tasks, R runs, F meta-features.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from distill.search.meta import STUDENT_FAMILY, TEACHER_FAMILY
from distill.wording import counted

NUM_NEIGHBOURS = 5
"""[draft]"""
BOOST_BEYOND = 50
"""Past runs beyond which gradient boosting proposes [draft]."""
MIN_BOOSTED_TASKS = 5
"""Past tasks that it needs [ours]: all runs of a task have nearly one vector of features."""
BEST_SHARE = 0.1
"""Share of a task's runs that count as what worked [ours]; see :class:`ConfigurationMemory`."""


@dataclass(frozen=True)
class Axis:
    """One hyper-parameter: its range [draft], the scale it is averaged on and its step [ours]."""

    key: str
    low: float
    high: float
    is_log: bool
    step: float
    """Of a refinement; on the log scale in nats (0.5: a factor of 1.65)."""

    def coordinate(self, value: float) -> float:
        """On the axis' own scale; a value outside the range counts as the nearer end."""
        value = min(max(value, self.low), self.high)
        return math.log(value) if self.is_log else value

    def value(self, coordinate: float) -> float:
        """In the range."""
        value = math.exp(coordinate) if self.is_log else coordinate
        return float(min(max(value, self.low), self.high))

    def moved(self, value: float, num_steps: float) -> float:
        """``value``, this many steps up; negative: down. In the range."""
        return self.value(self.coordinate(value) + num_steps * self.step)


EPSILON = "chain.epsilon"
# alpha is averaged as it is: a logit would let one pure α of 0 or 1 outweigh all others.
AXES = (
    Axis("kd.temperature", 2.0, 8.0, is_log=False, step=1.0),
    Axis("kd.alpha", 0.0, 1.0, is_log=False, step=0.1),
    Axis("optimizer.lr", 1e-5, 1e-2, is_log=True, step=0.5),
    Axis("optimizer.weight_decay", 1e-6, 1e-3, is_log=True, step=1.0),
    Axis(EPSILON, 0.005, 0.05, is_log=True, step=0.5),
)
KEYS = tuple(axis.key for axis in AXES)
ABSENT = (EPSILON,)
"""Keys that a run may lack: only runs with a chain have them."""

# Spread over orders of magnitude, or unbounded: one wide table must not set the scale of all.
_COMPRESSED = {
    *("meta.n", "meta.n_test", "meta.d", "meta.classes", "meta.imbalance", "meta.compression"),
    *("meta.mean", "meta.variance", "meta.skewness", "meta.kurtosis"),
}
_ONE_HOTS = (TEACHER_FAMILY, STUDENT_FAMILY)


@dataclass(frozen=True)
class Experience:
    """One past run, or the mean of the best runs of one task."""

    task: str
    """What makes qualities comparable: the data's fingerprint and the teachers."""
    meta: dict[str, float]
    """``meta.*``, finite; see distill/search/meta.py. Older versions recorded fewer."""
    values: dict[str, float]
    """Hyper-parameters by key."""
    quality: float
    """Higher is better, within a task."""


@dataclass(frozen=True)
class PastTask:
    """The runs of one task, as far as they count."""

    mean: Experience
    """Of the best runs, each value on its axis' own scale."""
    best: tuple[Experience, ...]
    num_runs: int
    """All, the best ones included."""


@dataclass(frozen=True)
class Neighbour:
    """A past task that a proposal is the mean of."""

    experience: Experience
    similarity: float
    """Cosine of the standardised meta-features that both have, in [−1, 1]."""


@dataclass(frozen=True)
class ConfigurationProposal:
    """A configuration to begin with, and where it comes from."""

    values: dict[str, float]
    """For each key of the defaults."""
    neighbours: tuple[Neighbour, ...]
    """Nearest first; empty unless ``model`` is nearest."""
    model: Literal["defaults", "nearest", "boosting"]
    why: str
    """One sentence for people."""


class ConfigurationMemory:
    """Past tasks, and of each its best runs.

    The best tenth of a task's runs, at least one, and all that equal the last of these: the best of
    many noisy runs is lucky, their mean less so, and a small validation split has many ties. Values
    and meta-features must be finite.
    """

    def __init__(self, experiences: Iterable[Experience]) -> None:
        self.runs = tuple(experiences)
        self.tasks = _tasks(self.runs)

    @property
    def experiments(self) -> tuple[Experience, ...]:
        """The mean of the best runs of each task."""
        return tuple(task.mean for task in self.tasks)

    def mean(self, defaults: Mapping[str, float]) -> dict[str, float]:
        """The mean of all past tasks, whatever their features: a control for :meth:`propose`."""
        values = dict(defaults)
        for axis in (axis for axis in AXES if axis.key in defaults):
            known = _tasks([run for run in self.runs if axis.key in run.values])
            if known:
                values[axis.key] = _mean(axis, [task.mean for task in known])
        return values

    def propose(
        self, meta: Mapping[str, float], defaults: Mapping[str, float], seed: int = 0
    ) -> ConfigurationProposal:
        """Values for the keys of ``defaults`` (some of :data:`KEYS`), within the ranges [draft].

        Past runs count for the keys that they have, and are compared by the meta-features that
        both have; a run without any of either does not count. A key that no past run has keeps its
        default. With more than 50 runs of at least 5 tasks: gradient boosting on the features that
        all of their best runs have. A function of its arguments: ``seed`` is the boosting's.
        """
        assert set(defaults) <= set(KEYS), set(defaults) - set(KEYS)
        groups: dict[tuple[int, ...], list[Axis]] = {}  # the runs that have a key: their axes
        for axis in (axis for axis in AXES if axis.key in defaults):
            known = [axis.key in r.values and bool(meta.keys() & r.meta.keys()) for r in self.runs]
            groups.setdefault(tuple(np.flatnonzero(known).tolist()), []).append(axis)
        groups.pop((), None)
        if not groups:
            why = "no past run has values of these keys"
            return ConfigurationProposal(dict(defaults), (), "defaults", why)
        parts = [
            _proposed(_tasks([self.runs[i] for i in known]), axes, meta, seed)
            for known, axes in groups.items()
        ]
        values = dict(defaults)
        for part in parts:
            values |= part.values
        # All but chain.epsilon are of the same runs.
        main, *others = parts
        why = "; ".join([main.why, *(f"{', '.join(p.values)}: {p.why}" for p in others)])
        return ConfigurationProposal(values, main.neighbours, main.model, why)


def _proposed(
    tasks: Sequence[PastTask], axes: Sequence[Axis], meta: Mapping[str, float], seed: int
) -> ConfigurationProposal:
    """Of axes whose values all runs of these tasks have."""
    num_runs = sum(task.num_runs for task in tasks)
    rows = [(run, 1 / len(task.best)) for task in tasks for run in task.best]
    names = sorted(name for name in meta if all(name in run.meta for run, _ in rows))
    if num_runs > BOOST_BEYOND and len(tasks) >= MIN_BOOSTED_TASKS and names:
        values = {axis.key: _boosted(axis, rows, names, meta, seed) for axis in axes}
        why = (
            f"gradient boosting over the best runs of {counted(len(tasks), 'past task')} "
            f"({counted(num_runs, 'run')}){_left_out(meta.keys() - set(names))}"
        )
        return ConfigurationProposal(values, (), "boosting", why)
    past = [task.mean for task in tasks]
    past_EF, present_F = _standardised(past, meta)
    similarity_E = _cosines(past_EF, present_F)
    nearest = np.argsort(-similarity_E, kind="stable")[:NUM_NEIGHBOURS]
    neighbours = tuple(Neighbour(past[i], float(similarity_E[i])) for i in nearest)
    values = {axis.key: _mean(axis, [n.experience for n in neighbours]) for axis in axes}
    listed = ", ".join(f"{n.experience.task} ({n.similarity:.2f})" for n in neighbours)
    fewer = meta.keys() - set.intersection(*(set(n.experience.meta) for n in neighbours))
    why = (
        f"mean of the {len(neighbours)} nearest of {counted(len(tasks), 'past task')} "
        f"({counted(num_runs, 'run')}), by "
        f"cosine of their meta-features: {listed}{_left_out(fewer)}"
    )
    return ConfigurationProposal(values, neighbours, "nearest", why)


def _left_out(names: Iterable[str]) -> str:
    """That some runs were recorded by a version with fewer meta-features."""
    # A one-hot code by its name alone: meta.teacher_family.
    listed = ", ".join(sorted({".".join(name.split(".")[:2]) for name in names}))
    return f"; compared without {listed}, which some of them lack" * bool(listed)


def _tasks(runs: Iterable[Experience]) -> tuple[PastTask, ...]:
    by_task: dict[str, list[Experience]] = defaultdict(list)
    for run in runs:
        by_task[run.task].append(run)
    return tuple(_past(by_task[task]) for task in sorted(by_task))


def _past(runs: list[Experience]) -> PastTask:
    # In an order of their own: sums must not depend on how a store lists runs.
    ranked = sorted(
        runs, key=lambda r: (-r.quality, sorted(r.values.items()), sorted(r.meta.items()))
    )
    last = ranked[math.ceil(BEST_SHARE * len(runs)) - 1]
    best = [run for run in ranked if run.quality >= last.quality]
    known = {a: [run for run in best if a.key in run.values] for a in AXES}
    values = {axis.key: _mean(axis, having) for axis, having in known.items() if having}
    names = sorted({name for run in best for name in run.meta})
    meta = {n: float(np.mean([r.meta[n] for r in best if n in r.meta])) for n in names}
    quality = float(np.mean([run.quality for run in best]))
    return PastTask(Experience(best[0].task, meta, values, quality), tuple(best), len(runs))


def _mean(axis: Axis, experiences: Sequence[Experience]) -> float:
    return axis.value(float(np.mean([axis.coordinate(e.values[axis.key]) for e in experiences])))


def _standardised(
    past: Sequence[Experience], meta: Mapping[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    """[E, F] and [F]: mean 0 and deviation 1 over the past; NaN where a past task lacks a feature.

    A feature that never varied there is 0. The columns of a one-hot code together weigh as much as
    one feature.
    """
    names = sorted(meta.keys() & {name for e in past for name in e.meta})
    past_EF = np.array([[_scaled(n, e.meta.get(n, math.nan)) for n in names] for e in past])
    present_F = np.array([_scaled(name, meta[name]) for name in names])
    mean_F, deviation_F = np.nanmean(past_EF, 0), np.nanstd(past_EF, 0)
    varies_F = deviation_F > 1e-9 * (1 + np.abs(mean_F))
    scale_F = np.where(varies_F, deviation_F, 1.0)
    for code in _ONE_HOTS:
        is_code_F = varies_F & np.array([name.startswith(code) for name in names])
        scale_F[is_code_F] *= math.sqrt(is_code_F.sum())
    return (past_EF - mean_F) / scale_F * varies_F, (present_F - mean_F) / scale_F * varies_F


def _scaled(name: str, value: float) -> float:
    """sign(x) · log10(1 + |x|) of what spreads over orders of magnitude."""
    return math.copysign(math.log10(1 + abs(value)), value) if name in _COMPRESSED else value


def _cosines(past_EF: np.ndarray, present_F: np.ndarray) -> np.ndarray:
    """[E], over the features that both have; 0 where a vector is 0, as of the only past task."""
    is_known_EF = ~np.isnan(past_EF)
    past_EF = np.where(is_known_EF, past_EF, 0.0)
    lengths_E = np.linalg.norm(past_EF, axis=1) * np.linalg.norm(is_known_EF * present_F, axis=1)
    return np.divide(
        past_EF @ present_F, lengths_E, out=np.zeros(len(past_EF)), where=lengths_E > 0
    )


def _boosted(
    axis: Axis,
    rows: Sequence[tuple[Experience, float]],
    names: Sequence[str],
    meta: Mapping[str, float],
    seed: int,
) -> float:
    """``rows``: runs and their weights, which add up to 1 for each task."""
    from sklearn.ensemble import GradientBoostingRegressor

    inputs_RF = [[_scaled(name, run.meta[name]) for name in names] for run, _ in rows]
    targets_R = [axis.coordinate(run.values[axis.key]) for run, _ in rows]
    model = GradientBoostingRegressor(random_state=seed)
    model.fit(inputs_RF, targets_R, sample_weight=[weight for _, weight in rows])
    present_F = [[_scaled(name, meta[name]) for name in names]]
    return axis.value(float(model.predict(present_F)[0]))
