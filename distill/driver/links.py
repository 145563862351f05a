"""A chain's links, one after the other: trained, exported, measured, kept or dropped.

    <output>/links/<i>/          the fit of intermediate link i; model/: its export
    <output>/links/chain.json    the decisions; a resumed run goes on after the last one

See config/chain.py for the sizes and the rule. A link is trained as the student is; link 1 by all
teachers, each later one, and the student, by the last link that was kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from distill.config import Chain, Experiment, Student
from distill.config.chain import is_dropped, link_name, relative_change
from distill.errors import RunFolderError
from distill.tasks.chained import Chained, Decision, Link
from distill.tasks.jobs import with_student
from distill.teachers.setup import Guidance
from distill.training.fit import fit_and_save, is_done
from distill.training.fitted import best_evaluation
from distill.training.job import Job

FILE = "chain.json"


@dataclass(frozen=True)
class Stages:
    """What the driver does for a chain."""

    guide: Callable[[Job | None], Guidance]
    """The teachers of a job, not yet served: of None those of the experiment, else the exported
    link."""
    serve: Callable[[Guidance], Guidance]
    """The same teachers, served until others are; see :class:`ServedTeachers`."""
    train: Callable[[Job], None]
    """To its end, or from where it stands; returns at once if it is trained."""
    measure: Callable[[Job], float | None]
    """The aggregated teachers on validation, by the metric that selects weights; the job is
    distilled from them."""
    say: Callable[[str], None]
    find: Callable[[Job], bool] = lambda job: False
    """Place the finished fit of an equal job, from the shared memory, where there is one."""
    prepare: Callable[[Job], Job] = lambda job: job
    """A job with all its settings decided: the number of its threads."""


class ServedTeachers:
    """Teachers that are served until others are needed, and then let go: a context manager."""

    def __init__(self, serve: Callable[[Guidance], AbstractContextManager[Guidance]]) -> None:
        self._serve = serve
        self._stack = ExitStack()
        self._served: Guidance | None = None

    def __call__(self, guidance: Guidance) -> Guidance:
        if self._served is None or self._served.served != guidance.served:
            self.close()
            self._served = self._stack.enter_context(self._serve(guidance))
        return self._served

    def close(self) -> None:
        self._served = None
        self._stack.close()

    def __enter__(self) -> ServedTeachers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def link_jobs(student: Job, students: Sequence[Student], folder: Path) -> list[Job]:
    """The intermediate links: the student's job with another model and folder."""
    return [
        replace(
            student,
            name=link_name(i),
            folder=str(folder / str(i)),
            model=with_student(student.model, own),
        )
        for i, own in enumerate(students, 1)
    ]


def taught(job: Job, experiment: Experiment, guidance: Guidance | None) -> Job:
    """The job, distilled from these teachers with the settings of the experiment."""
    sampling: Any = experiment.sampling
    names = [t.name for t in guidance.teachers] if guidance else []
    if names and getattr(sampling, "teacher", None) not in (None, *names):
        sampling = sampling.model_copy(update={"teacher": None})  # a link is the only teacher
    return replace(
        job,
        guidance=guidance,
        objective=experiment.objective if guidance else None,
        kd=experiment.kd if guidance else None,
        sampling=sampling,
    )


def run_chain(
    experiment: Experiment, student: Job, links: Sequence[Job], stages: Stages
) -> Chained:
    """Train the links until the chain ends, then the student from the last one that is kept."""
    assert experiment.chain is not None
    path = Path(links[0].folder).parent / FILE
    record = Record.read(path, student.selection.metric)
    done: list[Link] = []
    source: Job | None = None
    for link in links:
        job = stages.prepare(taught(link, experiment, stages.guide(source)))
        assert job.guidance is not None
        if len(record.links) == len(done):
            stages.find(job)
            served = job
            if not (done and is_done(job)):  # of link 1, the teachers are measured too
                served = replace(job, guidance=stages.serve(job.guidance))
            stages.train(served)
            if not done:
                record = replace(record, teachers=stages.measure(served))
            fit_and_save(job)  # which is trained: exports it
            decision = _decided(job, experiment.chain, record)
            record = replace(record, links=(*record.links, decision))
            record.write(path)
        decision = record.links[len(done)]
        stages.say(_line(decision, record.metric))
        done.append(Link(job, decision))
        if not decision.is_kept:
            break
        source = job
    student = stages.prepare(taught(student, experiment, stages.guide(source)))
    assert student.guidance is not None
    stages.find(student)
    if not is_done(student):
        student = replace(student, guidance=stages.serve(student.guidance))
    stages.train(student)
    return Chained(student, tuple(done))


@dataclass(frozen=True)
class Record:
    """What ``chain.json`` holds."""

    metric: str
    teachers: float | None = None
    """The aggregated teachers' value."""
    links: tuple[Decision, ...] = ()

    @classmethod
    def read(cls, path: Path, metric: str) -> Record:
        """An empty one where there is no file; RunFolderError for one that is unreadable."""
        if not path.exists():
            return cls(metric)
        try:
            content = json.loads(path.read_text("utf-8"))
            links = tuple(Decision(**link) for link in content["links"])
            return cls(content["metric"], content["teachers"], links)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunFolderError(
                f"{path} is unreadable ({error}): delete it, the same command then measures the "
                "links again"
            ) from None

    def write(self, path: Path) -> None:
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), indent=1), "utf-8")
        os.replace(partial, path)


def _decided(job: Job, chain: Chain, record: Record) -> Decision:
    """Of a link that is trained."""
    value = best_evaluation(job)[record.metric]
    number = len(record.links) + 1
    before = record.links[-1].value if record.links else record.teachers
    against = record.links[-1].name if record.links else "the teachers"
    if before is None:
        return Decision(job.name, value, None, True, "the teachers' value is not known")
    change = relative_change(before, value, job.selection.prefers_low)
    is_kept = not is_dropped(chain.stop, chain.epsilon, number, change)
    how = "better" if change >= 0 else "worse"
    reason = (
        f"{abs(change):.2%} {how} than {against} ({before:.4g}); chain.stop {chain.stop}, epsilon "
        f"{chain.epsilon:g}"
    )
    return Decision(job.name, value, change, is_kept, reason)


def _line(decision: Decision, metric: str) -> str:
    kept = "kept" if decision.is_kept else "dropped, the chain ends"
    return f"{decision.name}: {metric} {decision.value:.4g}, {decision.reason}: {kept}"
