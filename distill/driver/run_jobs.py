"""The fits of a run: the jobs of experts, router, baselines, links of a chain and student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distill.aggregation import Routed
from distill.config import Experiment, LabelsOnly, Student
from distill.config.chain import link_name
from distill.driver.context import Driver, Work
from distill.errors import RunFolderError
from distill.experts.jobs import expert_jobs
from distill.experts.partition import Parts, by_column
from distill.experts.router import router_job
from distill.names import folder_name
from distill.tasks.jobs import student_job, with_student, write_tokenizer
from distill.training.job import Job


@dataclass(frozen=True)
class Jobs:
    """The fits of a run."""

    experts: tuple[Job, ...] = ()
    router: Job | None = None
    """None: there is none, or a trained one is named."""
    baselines: tuple[Job, ...] = ()
    links: tuple[Job, ...] = ()
    student: Job | None = None
    """None: ``distill experts``."""
    parts: Parts | None = None
    """The part of the data of each expert, or of each teacher that is named like a domain."""

    @property
    def teachers(self) -> list[Job]:
        """Those that are served as teachers, and last the router."""
        return [*self.experts, *([self.router] if self.router else [])]

    @property
    def by_name(self) -> dict[str, Job]:
        own = [*self.teachers, *self.baselines, *self.links]
        return {job.name: job for job in [*own, *([self.student] if self.student else [])]}


def jobs_of(d: Driver, student: Job) -> Jobs:
    """Every fit of the run."""
    links = link_jobs(student, d.plan.links, d.run.links) if d.plan.links else []
    return replace(
        jobs_of_teachers(d),
        baselines=tuple(jobs_of_baselines(d, student)),
        links=tuple(links),
        student=student,
    )


def jobs_of_teachers(d: Work) -> Jobs:
    """The fits of experts and router alone."""
    experts, parts = jobs_of_experts(d)
    return Jobs(tuple(experts), router_of(d, experts, parts), parts=parts)


def own_job(d: Work) -> Job:
    """The run's student, still without its teachers."""
    experiment, corpus = d.experiment, d.plan.corpus
    tokenizer = write_tokenizer(experiment.student, d.plan.tokenizer, corpus, d.run.tokenizer)
    return student_job(experiment, corpus, tokenizer, d.run.fit, d.run.stop)


def jobs_of_experts(d: Work) -> tuple[list[Job], Parts | None]:
    """Jobs of the experts (none if ``teachers`` names folders), and each row's own expert."""
    experiment, corpus = d.experiment, d.plan.corpus
    experts = experiment.experts
    if experts is None:
        named = {t.name for t in experiment.teachers} & set(corpus.domain_names)
        return [], by_column(d.plan.rows, ("test",)) if named else None
    data = d.plan.task.data(experiment, corpus, experts.base)  # in the base's tokens
    parts = d.plan.task.parts(experiment, data, d.run.experts)
    jobs = expert_jobs(experts, parts, data, d.run.experts, experiment.seed)
    return _own_folders(d, jobs), parts


def router_of(d: Work, experts: list[Job], parts: Parts | None) -> Job | None:
    """The job of the router, where the aggregation needs one and names no trained one."""
    config = d.experiment.experts
    if config is None or parts is None or not trains_router(d.experiment):
        return None
    built = router_job(config, parts, experts[0].data, d.run.experts, d.experiment.seed)
    return replace(built, stop_file=str(d.run.stop))


def _own_folders(d: Work, jobs: list[Job]) -> list[Job]:
    """The experts' jobs, each with the run's stop file; names are kept next to their folders."""
    d.run.keep_expert_names(job.name for job in jobs)
    return [replace(job, stop_file=str(d.run.stop)) for job in jobs]


def jobs_of_baselines(d: Driver, student: Job) -> list[Job]:
    """Students without teachers: labelled rows, the same loop, by default as many steps."""
    experiment, corpus = d.experiment, d.plan.corpus
    jobs = []
    for baseline in experiment.baselines:
        if not isinstance(baseline, LabelsOnly):
            continue
        folder = d.run.baselines / folder_name(baseline.name)
        _claim_baseline(folder, baseline)
        model, data = student.model, student.data
        if baseline.student is not None:
            own = baseline.student
            default = own.init_from.path if own.init_from else d.plan.tokenizer
            tokenizer = write_tokenizer(own, default, corpus, folder / "tokenizer")
            model = with_student(student.model, own, tokenizer)
            data = d.plan.task.data(experiment, corpus, tokenizer)
        trainer = experiment.trainer.model_copy(
            update={"engine": "torch", "num_workers": 1, "micro_batch_size": None}
        )
        own_length = {"epochs": baseline.epochs, "batch_size": baseline.batch_size}
        trainer = trainer.model_copy(update={k: v for k, v in own_length.items() if v is not None})
        jobs.append(
            replace(
                student,
                name=baseline.name,
                folder=str(folder),
                model=model,
                data=data,
                train_rows=d.plan.task.baseline_rows(student),
                optimizer=baseline.optimizer or experiment.optimizer,
                trainer=trainer,
                num_steps=student.total_steps if baseline.epochs is None else None,
            )
        )
    return jobs


def _claim_baseline(folder: Path, baseline: LabelsOnly) -> None:
    """Baselines may be added on resuming; one that is there must be the same."""
    claim, settings = folder / "baseline.json", baseline.model_dump_json()
    if claim.exists() and claim.read_text("utf-8") != settings:
        raise RunFolderError(
            f"baseline {baseline.name!r} was trained with other settings: give it another name, or "
            f"delete {folder}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    claim.write_text(settings, "utf-8")


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


def trains_router(experiment: Experiment) -> bool:
    """Whether the aggregation needs a router and names no trained one."""
    aggregation, experts = experiment.aggregation, experiment.experts
    is_needed = isinstance(aggregation, Routed) and aggregation.router is None
    return is_needed and experts is not None and experts.router is not None
