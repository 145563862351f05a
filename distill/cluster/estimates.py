"""Estimated times of a run's stages: the order in which they start, when all have ended, and the
critical path.

HPM-KD's parallel pipeline (arXiv 2512.09886, component 5) assigns each task in advance to the
worker with the least queue and estimate [draft]. Ours is list scheduling (Graham 1969): when there
is room, the stage with the longest remaining path starts. If the estimates are exact, both rules
give a task the same worker; if they are not, a worker that ends early takes the next stage.

:class:`StageQueue` is that rule. Ray's tasks are started by it, and :func:`simulate` predicts with
it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf

STEP_S = 0.004
"""Of a step that is no product: the optimizer's loop, the exchange with the teachers."""


@dataclass(frozen=True)
class Training:
    """What the time of one fit depends on."""

    num_active: int
    """Parameters that multiply: without embeddings, which are looked up."""
    tokens_per_row: float
    batch_size: int
    num_steps: int
    num_validation: int = 0
    eval_every: float = inf
    """Steps."""
    per_parameter: float = 6.0
    """Floating-point operations of training, for each parameter and token: 2 forward, 2 for the
    gradients of the activations and 2 for those of the weights, where they are computed."""

    @property
    def operations(self) -> float:
        """Floating-point, of training and of the evaluations' forwards."""
        evaluated = self.num_validation * self.num_steps / self.eval_every
        rows = self.per_parameter * self.batch_size * self.num_steps + 2 * evaluated
        return rows * self.num_active * self.tokens_per_row

    def seconds(self, rate: float) -> float:
        """``rate``: floating-point operations a second of all its threads together."""
        return self.operations / rate + self.num_steps * STEP_S


@dataclass(frozen=True)
class Scheduled:
    """A stage as the schedule sees it: a task, or the training of the student."""

    name: str
    seconds: float
    """Estimated."""
    after: tuple[str, ...] = ()
    """Stages that must have ended before. A name that is not in the queue has ended."""
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    rest: float = 0.0
    """Seconds of what comes after it and is not in the queue: of an expert, the student."""
    kind: str = ""
    """Stages of a kind train similar models: the measured times of those that ended correct the
    estimates of the others."""
    is_background: bool = False
    """Whether it may run while the student is trained: a baseline."""


@dataclass(frozen=True)
class Room:
    """What the stages that run at once may use together."""

    num_cpus: float = inf
    num_gpus: float = inf
    max_stages: float = inf

    def holds(self, stages: Sequence[Scheduled]) -> bool:
        return (
            sum(s.num_cpus for s in stages) <= self.num_cpus + 1e-6
            and sum(s.num_gpus for s in stages) <= self.num_gpus + 1e-6
            and len(stages) <= self.max_stages
        )


def remaining(stages: Iterable[Scheduled]) -> dict[str, float]:
    """Of each stage: its seconds and those of the longest path of stages after it."""
    by_name = {stage.name: stage for stage in stages}
    followers: dict[str, list[str]] = {name: [] for name in by_name}
    for stage in by_name.values():
        for name in stage.after:
            if name in followers:
                followers[name].append(stage.name)
    found: dict[str, float] = {}

    def path(name: str) -> float:
        if name not in found:
            stage = by_name[name]
            found[name] = stage.seconds + max([stage.rest, *map(path, followers[name])])
        return found[name]

    return {name: path(name) for name in by_name}


def critical_path(stages: Sequence[Scheduled]) -> list[Scheduled]:
    """The longest chain of stages, each after the one before: no number of workers is faster."""
    left = remaining(stages)
    chain: list[Scheduled] = []
    ready = [s for s in stages if not {other.name for other in stages} & set(s.after)]
    while ready:
        chain.append(max(ready, key=lambda s: left[s.name]))
        ready = [s for s in stages if chain[-1].name in s.after]
    return chain


class StageQueue:
    """Stages that wait, run and have ended.

    A stage is ready when all stages that it comes after have ended. Ready stages start in order of
    falling :func:`remaining`, ties in the order in which they were added. One that does not fit
    into the room is passed by those that do; if nothing runs, the first starts anyway, so that no
    stage waits for ever.

    ``background``: room of the background stages. They never use more, also before the student is
    trained: it would have to wait until they end.
    """

    def __init__(
        self,
        stages: Iterable[Scheduled] = (),
        room: Room | None = None,
        background: Room | None = None,
    ) -> None:
        self.room = room or Room()
        self.background = background or Room()
        self.waiting: dict[str, Scheduled] = {}
        self.running: dict[str, Scheduled] = {}
        self._ended: list[tuple[Scheduled, float]] = []
        """With the measured seconds."""
        self.add(stages)

    def add(self, stages: Iterable[Scheduled]) -> None:
        for stage in stages:
            assert stage.name not in self.waiting and stage.name not in self.running, stage.name
            self.waiting[stage.name] = stage

    def start(self) -> list[Scheduled]:
        """The stages that start now; they run until :meth:`end`."""
        left = remaining(self._corrected())
        started = []
        for name in sorted(self.waiting, key=lambda name: -left[name]):
            stage = self.waiting[name]
            if any(other in self.waiting or other in self.running for other in stage.after):
                continue
            running = list(self.running.values())
            others = [other for other in running if other.is_background]
            if stage.is_background and not self.background.holds([*others, stage]):
                continue
            if not running or self.room.holds([*running, stage]):
                self.running[name] = stage
                started.append(stage)
        for stage in started:
            del self.waiting[stage.name]
        return started

    def end(self, name: str, seconds: float | None = None) -> None:
        """``seconds``: measured, from its start to its end."""
        stage = self.running.pop(name)
        if seconds is not None and stage.seconds > 0:
            self._ended.append((stage, seconds))

    def correction(self, kind: str) -> float:
        """Measured / estimated seconds of the stages of this kind that ended; of all kinds where
        none of this one has; 1 where none has."""
        known = [e for e in self._ended if e[0].kind == kind] or self._ended
        estimated = sum(stage.seconds for stage, _ in known)
        return sum(seconds for _, seconds in known) / estimated if known else 1.0

    def _corrected(self) -> list[Scheduled]:
        return [
            replace(stage, seconds=stage.seconds * self.correction(stage.kind))
            for stage in [*self.waiting.values(), *self.running.values()]
        ]


def simulate(
    stages: Iterable[Scheduled], room: Room, background: Room | None = None
) -> dict[str, tuple[float, float]]:
    """When each stage starts and ends, in seconds, if every estimate is exact."""
    queue, now = StageQueue(stages, room, background), 0.0
    spans: dict[str, tuple[float, float]] = {}
    while queue.waiting or queue.running:
        spans |= {stage.name: (now, now + stage.seconds) for stage in queue.start()}
        now = min(spans[name][1] for name in queue.running)
        for name in [name for name in queue.running if spans[name][1] <= now]:
            queue.end(name)
    return spans


def makespan(stages: Iterable[Scheduled], room: Room, background: Room | None = None) -> float:
    """Seconds until all have ended."""
    return max((end for _, end in simulate(stages, room, background).values()), default=0.0)
