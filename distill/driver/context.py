"""What the parts of the driver share: the checked experiment, its run folder and its services."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from distill.config import Experiment
from distill.driver.memory.store import Memory, NoMemory
from distill.report.progress import Progress
from distill.run_folder import RunFolder
from distill.tasks.plan import Plan
from distill.tracking import Tracker
from distill.training.interrupt import StopOnSignal

Command = Literal["train", "sweep"]


@dataclass(frozen=True)
class Work:
    """A checked experiment and its run folder, which is this process's own."""

    plan: Plan
    run: RunFolder
    progress: Progress

    @property
    def experiment(self) -> Experiment:
        return self.plan.experiment


@dataclass(frozen=True)
class Driver(Work):
    """What every stage on the cluster needs."""

    tracker: Tracker
    interrupt: StopOnSignal
    memory: Memory | NoMemory = field(default_factory=NoMemory)
