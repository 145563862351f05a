"""The driver: check, train experts, serve them, train the student, evaluate, record.

Every phase keeps what it finished in the run folder, so the same command resumes anywhere.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import cast

from distill.cluster.connect import check_address, check_room, connect
from distill.cluster.group import run_group
from distill.cluster.placement import check_kept, check_labels
from distill.cluster.ray_tasks import RayLauncher
from distill.config import Experiment, LabelsOnly, Trainer
from distill.config.values import flatten
from distill.driver.checks.check import Command, check
from distill.driver.checks.estimate import operations_of_rank
from distill.driver.checks.resources import machine_cpus
from distill.driver.finished import Result, finished, keep
from distill.driver.fits import (
    POLL_S,
    STOP_PATIENCE_S,
    Fits,
    Watch,
    router_of,
    run_experts,
    run_tasks,
)
from distill.driver.links import ServedTeachers, Stages, link_jobs, run_chain, taught
from distill.driver.memory.store import Memory, NoMemory, open_memory
from distill.driver.quiet import silence
from distill.driver.serve import guidance_of_link, serve_teachers, served_as_actors, teachers_of
from distill.driver.warm_start import FILE as DECISION
from distill.driver.warm_start import reads_past_runs, undecided, warm_started
from distill.errors import Interrupted, RunFolderError, TeacherAway
from distill.experts.jobs import expert_jobs
from distill.experts.partition import Parts, by_column
from distill.names import folder_name
from distill.report.progress import Progress
from distill.run_folder import RunFolder
from distill.tasks.chained import Chained, value_of_teachers
from distill.tasks.jobs import student_job, with_student, write_tokenizer
from distill.tasks.outcome import Outcome, evaluate
from distill.tasks.plan import Plan
from distill.teachers.served import groups
from distill.teachers.setup import Guidance
from distill.tracking import KEPT, Tracker, check_reachable, not_reachable, silence_of
from distill.training.checkpoints import check_is_recent
from distill.training.deepspeed_engine import is_compiled
from distill.training.fit import is_done, is_saved
from distill.training.interrupt import StopOnSignal
from distill.training.job import Job
from distill.training.threads import decided, usable_cpus
from distill.wording import counted


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
    """What every phase on the cluster needs."""

    tracker: Tracker
    interrupt: StopOnSignal
    memory: Memory | NoMemory = field(default_factory=NoMemory)
    fits: Fits = field(default=cast("Fits", None), repr=False)
    """Training that runs as tasks on Ray, also while the driver does something else. Left out where
    no task is started."""


@contextmanager
def opened(
    experiment: Experiment, progress: Progress, command: Command = "train"
) -> Iterator[Work]:
    """Everything checked and the run folder locked. Interrupted, out of here, names what is kept
    of a run that was stopped."""
    silence()
    run = RunFolder(experiment.output)
    if not run.finished.exists():  # its result needs neither
        _check_addresses(experiment, run, progress, command)
    check_kept(experiment)
    plan = check(experiment, progress.say, command)
    run.claim(experiment, plan.identity)
    with closing(run):
        try:
            yield Work(plan, run, progress)
        except (Interrupted, KeyboardInterrupt) as error:
            at_once = isinstance(error, KeyboardInterrupt)
            stopped = _stopped(experiment.output, run.kept(), at_once)
            if isinstance(error, TeacherAway):
                raise TeacherAway(f"{error}: {stopped}; the same command resumes") from None
            raise Interrupted(stopped) from None


def _check_addresses(
    experiment: Experiment, run: RunFolder, progress: Progress, command: Command = "train"
) -> None:
    reason = silence_of(experiment.tracking)
    if reason is not None:
        if reads_past_runs(experiment, command) and not (run.root / DECISION).exists():
            check_reachable(experiment.tracking)
        progress.say(not_reachable(experiment.tracking, experiment.output, reason))
    check_address(experiment.cluster)


def _stopped(output: str, kept: list[str], at_once: bool) -> str:
    how = "stopped at once" if at_once else "stopped"
    if not kept:
        return f"{how} before the first checkpoint: {output} has nothing to resume"
    return f"{how}; {output} keeps {', '.join(kept)}"


@contextmanager
def driver(work: Work) -> Iterator[Driver]:
    """MLflow and Ray up; both down at the end."""
    experiment, plan, run, say = work.experiment, work.plan, work.run, work.progress.say
    if run.finished.exists():
        _check_addresses(experiment, run, work.progress)
    address = experiment.cluster.address
    say("starting Ray" if address is None else f"joining the Ray cluster at {address}")
    with (
        Tracker(experiment.tracking, run.root) as tracker,
        connect(experiment.cluster),
        # Last: ray.init sets handlers of its own.
        StopOnSignal(run.ask_to_stop, lambda: say(STOPPING)) as interrupt,
        closing(open_memory(experiment.memory, say)) as memory,
    ):
        check_room(experiment.cluster, plan.num_cpus, plan.num_gpus, say)
        check_labels(plan.experiment, say)
        say("Ctrl-C stops after a checkpoint; the same command resumes")
        fits = Fits(work, interrupt, RayLauncher(), memory)
        try:
            yield Driver(plan, run, work.progress, tracker, interrupt, memory, fits)
        except Exception:
            fits.end()
            raise


STOPPING = "stopping after the next checkpoint; Ctrl-C again stops at once"


def train(experiment: Experiment, progress: Progress) -> Outcome:
    """The main job: from a configuration to an exported student and its comparison table."""
    started = time.perf_counter()
    with opened(experiment, progress) as work:
        if (result := finished_before(work, "train")) is not None:
            student, report = work.run.student, work.run.report
            return Outcome(result.rows, result.metrics, student, report, {}, result.open_command)
        check_is_recent(work.run.fit, work.experiment.aggregation.version)
        with driver(work) as d:
            outcome = _train(d)
            d.progress.say("recording the results in MLflow")
            outcome.record(d.tracker, seconds=time.perf_counter() - started)
            outcome = replace(outcome, open_command=d.tracker.open_command)
        result = Result(outcome.rows, outcome.metrics, outcome.open_command)
        keep(work.run, work.plan, "train", result)
        return outcome


def _train(d: Driver) -> Outcome:
    experiment = d.experiment
    record_inputs(d, without=undecided(experiment))
    student = own_job(d)
    report_losses(d, student)
    experts, parts = jobs_of_experts(d)
    baselines = jobs_of_baselines(d, student)
    experts = run_experts(d, experts, parts, baselines, goes_on=True)
    if experiment.has_teachers and experiment.cache.type == "memory":
        d.progress.say("cache.type memory: a restarted run queries the teachers again")
    if d.plan.links:
        return _train_chain(d, student, experts, baselines, parts)
    with serve_teachers(d, experts) as guidance:
        d, student = warm_started(d, student, lambda: guidance, run_tasks)
        student = _with_threads(d, taught(student, d.experiment, guidance))
        _run_student(d, student, d.tracker)
        return _assessed(d, Chained(student), baselines, parts, guidance)


def _train_chain(
    d: Driver, student: Job, experts: list[Job], baselines: list[Job], parts: Parts | None
) -> Outcome:
    """The links, the student; teachers are served only while a job needs them."""
    teachers = teachers_of(d, experts)
    with ServedTeachers(partial(served_as_actors, d)) as serve:
        d, student = warm_started(d, student, lambda: serve(teachers), run_tasks)
        links = link_jobs(student, d.plan.links, d.run.links)
        stages = Stages(
            guide=lambda source: teachers if source is None else guidance_of_link(d, source),
            serve=serve,
            train=lambda job: _run_student(d, job, d.tracker if job.name == student.name else None),
            measure=lambda job: value_of_teachers(d.plan, job, d.interrupt.is_set),
            say=d.progress.say,
            find=d.memory.restore,
            prepare=partial(_with_threads, d),
        )
        chained = run_chain(d.experiment, student, links, stages)
        guidance = serve(teachers)
        return _assessed(d, chained.with_teachers(guidance), baselines, parts, guidance)


def _assessed(
    d: Driver,
    chained: Chained,
    baselines: list[Job],
    parts: Parts | None,
    guidance: Guidance | None,
) -> Outcome:
    d.fits.wait_for_all()  # the evaluation measures latencies
    outcome = evaluate(d.plan, d.run, chained, baselines, parts, d.interrupt, d.progress.say)
    if d.plan.links:
        outcome.metrics["chain.links"] = chained.num_kept
    outcome.metrics.update(_meta_features(d, guidance, outcome))
    outcome.metrics.update(d.memory.metrics())
    return outcome


def finished_before(work: Work, command: Command) -> Result | None:
    """The result of a run that has nothing left to do; records that MLflow lacks are sent."""
    result = finished(work.run, work.plan, command)
    if result is None:
        return None
    if (work.run.root / KEPT).exists():
        with Tracker(work.experiment.tracking, work.run.root):
            pass
    work.progress.say(f"{work.experiment.output} is finished; nothing to do")
    return result


def _meta_features(d: Driver, guidance: Guidance | None, outcome: Outcome) -> dict[str, float]:
    """``meta.*``, by which later sweeps find this run; see search/configuration_memory.py."""
    if guidance is None or (key := d.plan.task.memory_key(d.plan.corpus, guidance)) is None:
        return {}
    d.tracker.tags({"distill.task": key})
    task, student, corpus = d.plan.task, d.experiment.student, d.plan.corpus
    params = task.largest_teacher(guidance)
    return task.meta_features(corpus, guidance, student, outcome.metrics, params)


def train_experts(experiment: Experiment, progress: Progress) -> dict[str, Path]:
    """Experts and router alone; their Hugging Face folders by name."""
    with opened(experiment, progress) as work:
        jobs, parts = jobs_of_experts(work)
        router = router_of(work, jobs, parts)
        wanted = [*jobs, *([router] if router else [])]
        if all(map(is_saved, wanted)):
            progress.say(f"the experts in {experiment.output} are trained; nothing to do")
        else:
            with driver(work) as d:
                record_inputs(d)
                wanted = run_experts(d, jobs, parts)
    return {job.name: job.model_folder for job in wanted}


def record_inputs(d: Driver, without: Sequence[str] = ()) -> None:
    """The configuration, but for keys that are decided later, and the data."""
    d.tracker.describe(d.experiment)
    params = flatten(d.experiment.model_dump(mode="json"))
    d.tracker.params({key: value for key, value in params.items() if key not in without})
    rows = d.plan.rows
    for split in ("train", "transfer", "validation", "test"):
        num_rows = len(rows.rows(split))
        if num_rows:
            source = str(d.experiment.data.path)
            d.tracker.dataset(Path(source).stem, rows.fingerprint, source, split, num_rows=num_rows)
    if known := d.plan.task.data_metrics(rows):
        d.tracker.metrics(known, 0)
    d.tracker.artifact(d.run.root / "config.yaml")


def report_losses(d: Driver, student: Job) -> None:
    """Texts that were truncated or dropped: allowed, and never silent."""
    cut, dropped = student.data.open().num_truncated, d.plan.corpus.num_dropped
    if unlearnable := d.plan.rows.num_unlearnable:
        d.progress.say(f"{counted(unlearnable, 'row')} without target tokens dropped")
        d.tracker.metrics({"data.unlearnable_rows": unlearnable}, 0)
    if cut:
        length, rule = student.data.max_length, d.experiment.data.cut
        rows = counted(cut, "row")
        d.progress.say(f"{rows} truncated to data.max_length {length} tokens (data.cut {rule})")
    if dropped:
        d.progress.say(f"{counted(dropped, 'empty text')} dropped (data.on_empty_text)")
    d.tracker.metrics({"data.truncated_rows": cut, "data.dropped_rows": dropped}, 0)


# ---- jobs ----------------------------------------------------------------------------------


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


# ---- the student ------------------------------------------------------------------------------


def _run_student(d: Driver, job: Job, tracker: Tracker | None = None) -> None:
    """The student, or a link of its chain; ``tracker``: where its metrics are logged."""
    d.memory.restore(job)
    watch = Watch(d, [job], tracker)
    if not is_done(job):
        check_labels(d.experiment, d.progress.say, only="trainer.")  # nodes come and go
        d.progress.say(_starting(job.name, d.experiment.trainer))
        if job.threads.cached != job.threads.first and job.total_steps > job.steps_per_epoch:
            d.progress.say(_threads_line(job))
        group: Future[None] = Future()

        def run() -> None:
            try:
                group.set_result(run_group(job, job.trainer, d.run.root / "ray"))
            except BaseException as error:
                group.set_exception(error)

        # In a thread: this one draws the progress and receives Ctrl-C. A daemon: a group that waits
        # for resources for ever must not keep the process.
        threading.Thread(target=run, name="student-group", daemon=True).start()
        polls_left = STOP_PATIENCE_S / POLL_S
        while not group.done():
            watch.poll()
            d.fits.poll_during(job.name)
            time.sleep(POLL_S)
            if d.interrupt.is_set():
                polls_left -= 1
                if polls_left < 0 and not (Path(job.folder) / "metrics.jsonl").exists():
                    raise Interrupted(f"stopped before the worker group of {job.name} had started")
        group.result()
    watch.end(job.name)
    d.memory.keep(job)
    d.fits.check()


def _with_threads(d: Driver, job: Job) -> Job:
    """The job with the number of threads that it computes with once its teachers are idle."""
    experiment, cluster = d.experiment, d.experiment.cluster
    served = job.guidance.served if job.guidance else ()
    trainer = decided(
        experiment.trainer,
        Path(job.folder),
        [group[0].serving for group in groups(served)],
        # On a cluster, which nodes teachers and ranks are on is not known here.
        usable_cpus(machine_cpus(cluster)) if cluster.address is None else 0,
        operations_of_rank(d.plan, job) if job.are_outputs_cached else 0.0,
        job.are_outputs_cached,
    )
    return replace(job, trainer=trainer)


def _threads_line(job: Job) -> str:
    threads = job.threads
    return (
        f"{job.name}: {counted(threads.cached, 'thread')} for each rank from the second epoch on, "
        f"when all teacher outputs are cached ({threads.first} in the first)"
    )


def _starting(name: str, trainer: Trainer) -> str:
    owner = "the student" if name == "student" else name
    ranks = counted(trainer.num_workers, "rank")
    if trainer.engine != "deepspeed" or trainer.num_gpus_per_worker > 0 or is_compiled():
        return f"starting {owner}'s worker group ({ranks})"
    return (
        f"starting {owner}'s worker group ({ranks}); on the first run on a machine DeepSpeed "
        "compiles an operator, which takes about a minute"
    )
