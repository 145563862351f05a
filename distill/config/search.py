"""The ``search`` section: which keys, how they are sampled, what counts, when to stop early."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from distill.config.search_space import Domain, Grid
from distill.variant import Only, Section, Variant

COSTS = (
    "student.params",
    "student.size_mb",
    "student.latency_ms",
    "student.gflops",
    "compression",
)
"""Metrics of a trial that are known before it trains."""
REPORTED = ("eval.accuracy", "eval.f1", "eval.perplexity")
"""Metrics that a trial reports at every evaluation, as far as its task has them: what schedulers
can go by."""
FINAL = ("eval.retention", "eval.teacher_accuracy", "time.total_s")
"""Metrics that a trial has at its end."""
TRIAL_METRICS = (*REPORTED, *COSTS, *FINAL)
TASKS_OF = {
    "eval.f1": ("classification",),
    "eval.retention": ("classification",),
    "eval.teacher_accuracy": ("classification",),
    "eval.perplexity": ("language_model",),
}
"""The tasks whose trials have a metric; all, where it is not named here."""


class GridSampler(Variant):
    """All combinations of the grids, once each."""

    type: Literal["grid"] = "grid"


class RandomSampler(Variant):
    """Independent draws."""

    type: Literal["random"] = "random"


class TPE(Variant):
    """Tree-structured Parzen estimator, Bergstra et al. 2011 (Optuna's)."""

    type: Literal["tpe"] = "tpe"
    num_startup: int = Field(default=8, ge=1)
    """Random trials before the model is used."""


class NSGA2(Variant):
    """Several objectives, by non-dominated sorting, Deb et al. 2002 (Optuna's)."""

    type: Literal["nsga2"] = "nsga2"
    population: int = Field(default=8, ge=2)
    """Trials of a generation. With Optuna's default, 50, a search of 30 trials would be random."""


Sampler = Annotated[GridSampler | RandomSampler | TPE | NSGA2, Field(discriminator="type")]


class ASHA(Variant):
    """Asynchronous successive halving, Li et al. 2020 (Ray Tune's). Counts evaluations."""

    type: Literal["asha"] = "asha"
    grace: int = Field(default=1, ge=1)
    """Evaluations of every trial before it can be stopped."""
    reduction: float = Field(default=3.0, gt=1)
    """One trial in this many continues at each rung."""


class MedianStopping(Variant):
    """Stop trials below the median of the others' means, Golovin et al. 2017 (Ray Tune's)."""

    type: Literal["median"] = "median"
    grace: int = Field(default=1, ge=1)
    """Evaluations of every trial before it can be stopped."""
    min_trials: int = Field(default=3, ge=2)
    """Minimum number of trials for the median."""


class PBT(Variant):
    """Population based training, Jaderberg et al. 2017 (Ray Tune's): the worst trials continue from
    the weights of the best, with changed values. ``num_trials`` is the population size. A resumed
    sweep restarts the members that had not finished."""

    type: Literal["pbt"] = "pbt"
    interval: int = Field(default=1, ge=1)
    """Evaluations between exchanges."""
    quantile: float = Field(default=0.25, gt=0, le=0.5)
    """Share of the trials that are the worst, and the best."""
    resample: float = Field(default=0.25, ge=0, le=1)
    """Probability that a value is drawn again instead of multiplied by 0.8 or 1.2."""


Scheduler = Annotated[ASHA | MedianStopping | PBT, Field(discriminator="type")]


class Champion(Section):
    """The best student that is small enough becomes a registered MLflow model."""

    name: str | None = None
    """Registered model; null: the experiment's name."""
    alias: str = Field(default="champion", pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$")
    max_mb: float | None = Field(default=None, gt=0)
    """Maximum ``student.size_mb``; null: any."""


class Search(Section):
    """What ``distill sweep`` varies. Teachers are queried once, for any number of trials."""

    space: dict[str, Domain] = Field(min_length=1)
    """Keys of the experiment (``kd.temperature``, ``student.size_mb``, …) and their domains."""
    sampler: Sampler | None = None
    """null: ``grid`` if every key is a grid, else ``nsga2``."""
    scheduler: Scheduler | None = None
    """Stops trials early, by the first goal; null: every trial is trained to its end."""
    num_trials: int | None = Field(default=None, ge=1)
    """Number of trials; null: all combinations of a grid, else 30."""
    goals: dict[str, Literal["max", "min"]] | None = None
    """Metrics, and whether each is maximised or minimised; the first is the quality. null:
    ``{eval.accuracy: max, student.size_mb: min}``; for language models ``eval.perplexity: min`` is
    first.
    """
    max_concurrent: int | None = Field(default=None, ge=1)
    """Trials that run at the same time; null: as many as fit."""
    warm_start: Annotated[bool, Only("classification")] = False
    """Start with the values that past runs in MLflow suggest for T, α, learning rate, weight decay
    and the threshold of a chain, as far as they are searched; brief runs compare and refine them.
    """
    champion: Champion = Champion()

    @model_validator(mode="after")
    def _consistent(self) -> Search:
        if self.goals is not None:
            self._check_goals(self.goals)
        grids = [key for key, domain in self.space.items() if isinstance(domain, Grid)]
        others = [key for key in self.space if key not in grids]
        if self.uses_grid and others:
            raise ValueError(
                f"search.sampler grid needs values for {others[0]}: make it a grid, or use "
                "another sampler"
            )
        if not self.uses_grid and grids:
            raise ValueError(
                f"search.space.{grids[0]} is a grid, which only search.sampler grid supports: make "
                "it a choice, or make every key a grid"
            )
        if self.uses_grid and self.num_trials not in (None, self.num_combinations):
            raise ValueError(
                f"search.num_trials is {self.num_trials}, the grid has {self.num_combinations} "
                "combinations: remove num_trials"
            )
        if self.is_population:
            self._check_pbt()
        return self

    def _check_goals(self, goals: dict[str, Literal["max", "min"]]) -> None:
        if not goals:
            raise ValueError("search.goals is empty: name a metric, such as eval.accuracy: max")
        unknown = [name for name in goals if name not in TRIAL_METRICS]
        if unknown:
            raise ValueError(
                f"search.goals: no trial logs {unknown[0]!r}: use {', '.join(TRIAL_METRICS)}"
            )
        quality = next(iter(goals))
        if self.scheduler is not None and quality not in REPORTED:
            raise ValueError(
                f"search.scheduler {self.scheduler.type!r} uses the first of search.goals, but "
                f"{quality} is not reported while a trial trains: put {' or '.join(REPORTED)} "
                "first"
            )

    def _check_pbt(self) -> None:
        fixed = [k for k in self.space if not k.startswith(("kd.", "optimizer."))]
        if fixed:
            raise ValueError(
                f"search.scheduler pbt changes values while a student trains, but {fixed[0]} "
                "cannot change: search only kd.* and optimizer.*, or use asha"
            )
        if any(k == "kd" or k.startswith("kd.schedule") for k in self.space):
            raise ValueError(
                "search.scheduler pbt changes values while a student trains, but the losses that "
                "kd.schedule follows belong to one schedule: remove it from search.space, or use "
                "asha"
            )
        if not isinstance(self.sampling, RandomSampler):
            raise ValueError("search.scheduler pbt needs search.sampler random: set it")

    @property
    def is_population(self) -> bool:
        """Whether trials take over each other's weights."""
        return isinstance(self.scheduler, PBT)

    @property
    def uses_grid(self) -> bool:
        if self.sampler is not None:
            return isinstance(self.sampler, GridSampler)
        return all(isinstance(domain, Grid) for domain in self.space.values())

    @property
    def sampling(self) -> GridSampler | RandomSampler | TPE | NSGA2:
        """The sampler, with the default filled in."""
        return self.sampler or (GridSampler() if self.uses_grid else NSGA2())

    @property
    def num_combinations(self) -> int:
        return math.prod(len(d.values) for d in self.space.values() if isinstance(d, Grid))

    @property
    def total_trials(self) -> int:
        return self.num_combinations if self.uses_grid else self.num_trials or 30

    def resolved(self, goals: Sequence[Goal]) -> Self:
        """With these goals (the task's) where the file names none."""
        defaults = {goal.metric: goal.mode for goal in goals}
        return self.model_copy(update={"goals": self.goals or defaults})

    @property
    def ordered_goals(self) -> list[Goal]:
        """Of a :meth:`resolved` search."""
        assert self.goals is not None
        return [Goal(metric, mode) for metric, mode in self.goals.items()]


@dataclass(frozen=True)
class Goal:
    """One objective of a sweep: a stable metric name, and which way is better."""

    metric: str
    mode: Literal["max", "min"]

    def cost(self, metrics: Mapping[str, float]) -> float:
        """The metric, signed so that less is better; infinite where it is missing or not finite."""
        value = metrics.get(self.metric)
        if value is None or not math.isfinite(value):
            return float("inf")
        return -value if self.mode == "max" else value


def default_goals(quality: Goal) -> tuple[Goal, ...]:
    """Quality against size: the goals of a sweep that names none. ``quality``: the task's goal."""
    return quality, Goal("student.size_mb", "min")
