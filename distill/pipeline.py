"""The driver: check, train experts, serve them, train the student, evaluate, record.

Every phase keeps what it finished in the run folder, so the same command resumes anywhere.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, cast

from distill.aggregation import Aggregation, Routed, UniformMean
from distill.check import Command, check
from distill.check_chain import serving_of_link
from distill.check_estimate import JobTimes, room_left
from distill.cluster import check_address, check_room, connect
from distill.comparison import fit_and_test, predictions_file
from distill.config import Experiment, LabelsOnly, Serving, Trainer
from distill.data.tokens import tokenise, tokenizer_fingerprint
from distill.errors import DistillError, Interrupted, RunFolderError
from distill.estimates import Room
from distill.experts.jobs import ROUTER, expert_jobs, router_job
from distill.experts.losses import losses_file, measure_losses, router_targets
from distill.experts.partition import Parts, by_column, partition
from distill.finished import Result, finished, keep
from distill.fit import Guidance, Job, TeacherSpec, is_done, is_saved
from distill.fitted import best_evaluation
from distill.interrupt import StopOnSignal
from distill.jobs import language_job, shown_to, student_job, write_tokenizer
from distill.links import Chained, ServedTeachers, Stages, link_jobs, run_chain, taught
from distill.memory.store import Memory, NoMemory, open_memory
from distill.models.adapter import adapter_fingerprint
from distill.models.load import load_tokenizer, was_read_at_padding, weights_fingerprint
from distill.models.tokenizer import num_ids
from distill.models.vocabulary import SharedTokens, shared_tokens
from distill.names import folder_name
from distill.outcome import Outcome, evaluate, majority_rates, measure_teachers
from distill.outcome_language import evaluate_language, measure_language_teachers
from distill.placement import check_kept, check_labels
from distill.plan import Plan
from distill.quiet import silence
from distill.report.progress import Progress, Tail, format_metrics
from distill.run_folder import RunFolder
from distill.specs import DataSpec, LanguageStudentSpec, StudentSpec
from distill.student.deepspeed_engine import is_compiled
from distill.student.group import run_group
from distill.student.store import check_is_recent, resumed_step, rewind_log
from distill.task import largest_teacher, meta_of, task_of
from distill.tasks import Launcher, RayLauncher, Task, Tasks, whole_room
from distill.teachers.cache import TeacherKey, home_of, open_cache
from distill.teachers.client import SilentTeachers
from distill.teachers.health import knows_nothing, knows_nothing_line
from distill.teachers.probability import file_fingerprint, is_pickle
from distill.temperature import ChoiceReader
from distill.tracking import Tracker, check_reachable
from distill.tracking.values import flatten
from distill.warm import undecided, warm_started
from distill.wording import counted

POLL_S = 0.5
STOP_PATIENCE_S = 60.0
"""How long a worker group may take to start after Ctrl-C, and tasks to write checkpoints after an
error."""
FIRST_S = 1e9
"""More than any task takes: a task that so much waits for starts before the others."""
LOSSES, MEASURING = "losses", "measuring the experts' losses"
"""Verb of the tasks that measure the experts' losses, and their label."""


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
        _check_addresses(experiment)
    check_kept(experiment)
    plan = check(experiment, progress.say, command)
    run.claim(experiment, plan.identity)
    with closing(run):
        try:
            yield Work(plan, run, progress)
        except (Interrupted, KeyboardInterrupt) as error:
            at_once = isinstance(error, KeyboardInterrupt)
            raise Interrupted(_stopped(experiment.output, run.kept(), at_once)) from None


def _check_addresses(experiment: Experiment) -> None:
    check_reachable(experiment.tracking)
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
        _check_addresses(experiment)
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
        student = taught(student, d.experiment, guidance)
        _run_student(d, student, d.tracker)
        return _assessed(d, Chained(student), baselines, parts, guidance)


def _train_chain(
    d: Driver, student: Job, experts: list[Job], baselines: list[Job], parts: Parts | None
) -> Outcome:
    """The links, the student; teachers are served only while a job needs them."""
    teachers = _teachers_of(d, experts)
    measure = measure_language_teachers if d.experiment.is_language_model else measure_teachers
    with ServedTeachers(partial(_served, d)) as serve:
        d, student = warm_started(d, student, lambda: serve(teachers), run_tasks)
        links = link_jobs(student, d.plan.links, d.run.links)
        stages = Stages(
            guide=lambda source: teachers if source is None else _guidance_of_link(d, source),
            serve=serve,
            train=lambda job: _run_student(d, job, d.tracker if job.name == student.name else None),
            measure=lambda job: measure(d.plan, job, d.interrupt),
            say=d.progress.say,
            find=d.memory.restore,
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
    assess = evaluate_language if d.experiment.is_language_model else evaluate
    outcome = assess(d.plan, d.run, chained, baselines, parts, d.interrupt, d.progress.say)
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
    if (work.run.root / "untracked.jsonl").exists():
        with Tracker(work.experiment.tracking, work.run.root):
            pass
    work.progress.say(f"{work.experiment.output} is finished; nothing to do")
    return result


def _meta_features(d: Driver, guidance: Guidance | None, outcome: Outcome) -> dict[str, float]:
    """``meta.*``, by which later sweeps find this run; see search/memory.py."""
    if guidance is None or d.plan.blocks is not None:
        return {}
    d.tracker.tags({"distill.task": task_of(d.plan.corpus, guidance)})
    params = largest_teacher(guidance)
    return meta_of(d.plan.corpus, guidance, d.experiment.student, outcome.metrics, params)


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
    if d.plan.blocks is None:
        d.tracker.metrics(majority_rates(d.plan.corpus), 0)
    d.tracker.artifact(d.run.root / "config.yaml")


def report_losses(d: Driver, student: Job) -> None:
    """Texts that were truncated or dropped: allowed, and never silent."""
    cut, dropped = student.data.open().num_truncated, d.plan.corpus.num_dropped
    if d.plan.blocks is not None and d.plan.blocks.num_unlearnable:
        unlearnable = d.plan.blocks.num_unlearnable
        d.progress.say(f"{counted(unlearnable, 'row')} without target tokens dropped")
        d.tracker.metrics({"data.unlearnable_rows": unlearnable}, 0)
    if cut:
        length, rule = student.data.max_length, student.data.cut
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
    if d.plan.blocks is not None:
        return language_job(experiment, d.plan, tokenizer, d.run)
    return student_job(experiment, corpus, tokenizer, d.run.fit, d.run.stop)


def jobs_of_experts(d: Work) -> tuple[list[Job], Parts | None]:
    """Jobs of the experts (none if ``teachers`` names folders), and each row's own expert."""
    experiment, corpus = d.experiment, d.plan.corpus
    experts = experiment.experts
    if experts is None:
        named = {t.name for t in experiment.teachers} & set(corpus.domain_names)
        return [], by_column(d.plan.rows, ("test",)) if named else None
    if d.plan.blocks is not None:
        blocks = language_job(experiment, d.plan, experts.base, d.run).data
        own: Any = blocks.open()  # of the base's tokens, whatever the student's
        parts = by_column(own, ("train", "validation", "test"))
        jobs = expert_jobs(experts, parts, blocks, d.run.experts, experiment.seed)
        return _own_folders(d, jobs), parts
    max_length, cut = experiment.data.max_length, experiment.data.cut
    data = DataSpec(str(corpus.folder), experts.base, max_length, cut)
    tokens = tokenise(corpus, experts.base, max_length, cut)
    parts = partition(
        experts.partition, corpus, tokens, experts.base, experiment.seed, d.run.experts
    )
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
            length = student.data.max_length
            if isinstance(student.model, LanguageStudentSpec):
                model = replace(student.model, student=own, tokenizer=tokenizer)
            else:
                model = StudentSpec(own, tokenizer, corpus.label_names, length, d.plan.features)
            data = replace(student.data, tokenizer=tokenizer)
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
                # A language model needs no labels: it is trained on the student's rows.
                train_rows=student.train_rows if d.plan.blocks else corpus.rows("train"),
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


# ---- running them ----------------------------------------------------------------------------


class Watch:
    """Follows the metrics that fits write, into progress bars and (the student's) into MLflow."""

    def __init__(self, d: Work, jobs: list[Job], tracker: Tracker | None = None) -> None:
        self._progress = d.progress
        self._tracker = tracker
        self._tails = {job.name: Tail(Path(job.folder) / "metrics.jsonl") for job in jobs}
        self._choices = {
            job.name: ChoiceReader(job.total_steps)
            for job in jobs
            if job.kd is not None and job.kd.schedule.type == "auto" and not is_done(job)
        }
        self._totals = {job.name: job.total_steps for job in jobs if not is_done(job)}
        # Of teachers that are queried about the data set's rows; warned of once.
        self._num_tokens = {
            teacher.name: teacher.num_labels
            for job in jobs
            if job.guidance is not None and not job.sampling.writes
            for teacher in job.guidance.teachers
            if teacher.is_language_model
        }
        for job in jobs:
            if is_done(job):
                d.progress.say(f"{job.name} is trained: {format_metrics(best_evaluation(job))}")
                continue
            if (note := job.replaced_aggregation) is not None:
                d.progress.say(note)
            total, step = job.total_steps, resumed_step(Path(job.folder))
            rewind_log(Path(job.folder), step)  # what is not to be done again
            if step:
                d.progress.say(f"{job.name}: resuming at step {step:,} of {total:,}")
            d.progress.update(job.name, step if step < total else None, total)

    def poll(self) -> None:
        for name, tail in self._tails.items():
            lines = tail.read()
            if self._tracker is not None and lines:
                self._tracker.lines(lines)
            for line in lines:
                if name in self._totals:
                    self._show(name, line["step"], line["metrics"])
                self._warn(line["metrics"])
                if name in self._choices and (choice := self._choices[name].read(line)):
                    self._progress.say(f"{name}: {choice.text}")
                    if self._tracker is not None:
                        self._tracker.tags({"distill.schedule": choice.type})

    def _show(self, name: str, step: int, metrics: dict[str, float]) -> None:
        # At the last step the loss is logged first: the bar ends with the evaluation.
        is_before_the_end = step >= self._totals[name] and not any(
            key.startswith("eval.") for key in metrics
        )
        self._progress.update(name, None if is_before_the_end else step, metrics=metrics)

    def _warn(self, metrics: dict[str, float]) -> None:
        for name, num_tokens in list(self._num_tokens.items()):
            perplexity = metrics.get(f"teacher.{name}.perplexity", 0.0)
            if knows_nothing(perplexity, num_tokens):
                self._progress.say(knows_nothing_line(name, perplexity, num_tokens))
                del self._num_tokens[name]

    def end(self, name: str) -> None:
        self.poll()
        if name in self._totals:
            self._progress.update(name, self._totals[name])


def router_of(d: Work, experts: list[Job], parts: Parts | None) -> Job | None:
    """The job of the router, where the aggregation needs one and names no trained one."""
    config, aggregation = d.experiment.experts, d.experiment.aggregation
    is_needed = isinstance(aggregation, Routed) and aggregation.router is None
    if config is None or config.router is None or parts is None or not is_needed:
        return None
    built = router_job(config, parts, experts[0].data, d.run.experts, d.experiment.seed)
    return replace(built, stop_file=str(d.run.stop))


class Fits:
    """Tasks of a run, their progress, and what happens if one fails.

    ``wait`` runs them in the foreground. What is left can go on in the background while the driver
    serves teachers and trains the student: it then calls ``poll``.
    """

    def __init__(
        self, work: Work, interrupt: StopOnSignal, launcher: Launcher, memory: Memory | NoMemory
    ) -> None:
        self._work, self._interrupt, self._launcher = work, interrupt, launcher
        self._memory = memory
        self._tasks: Tasks | None = None
        self._watches: dict[str, Watch] = {}
        self._num_losses = [0, 0]
        """Measured, and to be measured."""
        self._error: Exception | None = None

    @cached_property
    def _room(self) -> Room:
        """For tasks while the student is not trained."""
        return self.whole_room

    @property
    def whole_room(self) -> Room:
        """While neither teachers nor the student run."""
        return whole_room(self._work.experiment.cluster, self._launcher)

    @property
    def tasks(self) -> Tasks:
        if self._tasks is None:  # of a cluster that is up
            self._tasks = Tasks(self._room, self._launcher)
        return self._tasks

    def add(self, tasks: Sequence[Task], jobs: Sequence[Job]) -> None:
        """``jobs``: those whose progress is shown: of the tasks, and others that are done."""
        watch = Watch(self._work, list(jobs))
        self._watches |= {job.name: watch for job in jobs}
        self._num_losses[1] += sum(task.verb == LOSSES for task in tasks)
        self.tasks.add(tasks)

    def poll(self, timeout_s: float = 0.0) -> None:
        """Start what there is room for, and show the progress. The error of a task is kept for
        ``wait``: what else runs is not lost."""
        if self._interrupt.is_set():
            self.tasks.stop()
        try:
            for task in self.tasks.poll(timeout_s):
                if task.verb == LOSSES:
                    self._num_losses[0] += 1
                    num_done, num_all = self._num_losses
                    self._work.progress.update(MEASURING, num_done, num_all)
                else:
                    self._watches[task.job.name].end(task.job.name)
                    self._memory.keep(task.job)
        except Exception as error:
            if self._error is not None:  # a second one, as the first ends the run
                return
            self._error = error
        for watch in {id(watch): watch for watch in self._watches.values()}.values():
            watch.poll()

    def wait(self, names: Iterable[str]) -> None:
        """Until these tasks have ended. Raises as ``check`` does; Interrupted after a signal."""
        names = set(names)
        while self._error is None and names & set(self.tasks.pending):
            self.poll(POLL_S)
        self.check()
        self._interrupt.check()
        if names - self.tasks.ended:
            raise Interrupted("stopped before all tasks had ended")

    def wait_for_all(self) -> None:
        """Nothing is trained any more but these tasks."""
        self.tasks.set_room(self._room, self._room)
        self.wait(self.tasks.pending)

    def check(self) -> None:
        """Raise the first error, after the others have written checkpoints."""
        if self._error is not None:
            if self.tasks.pending:
                num = counted(len(self.tasks.pending), "task")
                self._work.progress.say(f"error: {num} more will write checkpoints and end")
            self.end()
            raise self._error

    def go_on(self, left: Room) -> None:
        """From now on teachers are served; ``left``: what they and the student leave to tasks. At
        any other time than its training the student's share is left too."""
        trainer = self._work.experiment.trainer
        ranks = trainer.num_workers
        self._room = replace(
            left,
            num_cpus=left.num_cpus + ranks * trainer.num_cpus_per_worker,
            num_gpus=left.num_gpus + ranks * trainer.num_gpus_per_worker,
            max_stages=left.max_stages + 1,
        )
        self.tasks.set_room(self._room, left)

    def poll_during(self, name: str) -> None:
        """As ``poll``, while ``name`` is trained. An error ends the run after that."""
        had_none = self._error is None
        self.poll()
        if had_none and self._error is not None:
            say = self._work.progress.say
            say(f"error: {self._error}")
            say(f"the training of {name} goes on; then the run ends with this error")

    def end(self) -> None:
        """The run ends early: those that run write checkpoints. After an error the time for that
        is limited; after a signal a second one ends it."""
        if self._tasks is None:
            return
        self._tasks.stop()
        if self._tasks.pending:
            self._work.run.ask_to_stop()
        is_limited = not self._interrupt.is_set()
        give_up = time.monotonic() + (STOP_PATIENCE_S if is_limited else float("inf"))
        while self._tasks.pending and time.monotonic() < give_up:
            try:
                list(self._tasks.poll(POLL_S))
            except DistillError:  # the first error is the run's
                continue
            except Exception:  # Ray itself has ended
                return


def run_experts(
    d: Driver,
    experts: list[Job],
    parts: Parts | None,
    others: Sequence[Job] = (),
    goes_on: bool = False,
) -> list[Job]:
    """Train experts and ``others``, and the router where one is needed: with them, or as soon as
    the experts have ended.

    ``goes_on``: of the others, those go on that fit next to teachers and student. Returns the jobs
    of the experts and, last, the router.
    """
    router = router_of(d, experts, parts)
    for job in [*experts, *others]:
        d.memory.restore(job)
    first, last = tasks_of(d, experts, router, parts, others)
    needed = [*experts, *([router] if router else [])]
    left = room_left(d.plan, d.fits.whole_room)
    if goes_on:
        last = [replace(task, is_background=left.holds([task.stage])) for task in last]
        d.fits.tasks.set_room(d.fits.whole_room, left)
    d.fits.add([*first, *last], [*needed, *others])
    d.fits.wait(task.name for task in [*first, *last] if not task.is_background)
    if goes_on:
        d.fits.go_on(left)
    return needed


def tasks_of(
    d: Driver,
    experts: list[Job],
    router: Job | None,
    parts: Parts | None,
    others: Sequence[Job],
) -> tuple[list[Task], list[Task]]:
    """What is still to be done, with estimates: of experts and router, and of the others, which
    the student does not wait for."""
    first = [Task(job, kind="expert") for job in experts if not is_saved(job)]
    if router is not None and not is_saved(router):
        assert parts is not None
        first += _router_tasks(d, router, parts, experts)
    tasks = _estimated(d, [*first, *_baseline_tasks(d, others)])
    return tasks[: len(first)], tasks[len(first) :]


def _baseline_tasks(d: Driver, jobs: Sequence[Job]) -> list[Task]:
    """A classifier is tested in the same task; language models are compared with the teachers."""
    if d.plan.blocks is not None:
        return [Task(job, kind="baseline") for job in jobs if not is_saved(job)]
    return [
        Task(job, fit_and_test, kind="baseline")
        for job in jobs
        if not (is_saved(job) and predictions_file(job).exists())
    ]


def _router_tasks(d: Driver, router: Job, parts: Parts, experts: list[Job]) -> list[Task]:
    """Training the router; before it, if they are its targets, measuring each expert's losses on
    every labelled row, once."""
    assert d.experiment.experts is not None and d.experiment.experts.router is not None
    if d.experiment.experts.router.targets == "partition" or is_done(router):
        d.memory.restore(router)
        return [Task(router, kind="router")]

    def with_targets(job: Job) -> Job:
        own = router_targets(parts, experts)
        job = replace(job, train_labels=own["train"], validation_labels=own["validation"])
        d.memory.restore(job)  # now that its labels are known
        return job

    losses = [
        Task(job, measure_losses, LOSSES, after=(f"fit:{job.name}",), kind=LOSSES)
        for job in experts
        if not losses_file(job).exists()
    ]
    after = tuple(task.name for task in losses) or tuple(f"fit:{job.name}" for job in experts)
    return [*losses, Task(router, after=after, kind="router", prepare=with_targets)]


def _estimated(d: Driver, tasks: list[Task]) -> list[Task]:
    """The tasks with the estimates that decide their order. The student waits for all but the
    baselines."""
    if len(tasks) < 2:
        return tasks
    times = JobTimes(d.plan)
    student = times.student
    labelled = len(d.plan.rows.rows("train")) + len(d.plan.rows.rows("validation"))

    def seconds(task: Task) -> float:
        return times.forward(task.job, labelled) if task.verb == LOSSES else times(task.job)

    return [
        replace(task, seconds=seconds(task), rest=0.0 if task.kind == "baseline" else student)
        for task in tasks
    ]


def run_tasks(d: Driver, jobs: list[Job]) -> None:
    """Train these to their end, before what else is left to do."""
    for job in jobs:
        d.memory.restore(job)
    tasks = _estimated(d, [Task(job) for job in jobs if not is_saved(job)])
    tasks = [replace(task, rest=FIRST_S) for task in tasks]
    d.fits.add(tasks, jobs)
    d.fits.wait(task.name for task in tasks)


def _run_student(d: Driver, job: Job, tracker: Tracker | None = None) -> None:
    """The student, or a link of its chain; ``tracker``: where its metrics are logged."""
    d.memory.restore(job)
    watch = Watch(d, [job], tracker)
    if not is_done(job):
        check_labels(d.experiment, d.progress.say, only="trainer.")  # nodes come and go
        d.progress.say(_starting(job.name, d.experiment.trainer))
        group: Future[None] = Future()

        def run() -> None:
            try:
                group.set_result(run_group(job, d.experiment.trainer, d.run.root / "ray"))
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


def _starting(name: str, trainer: Trainer) -> str:
    owner = "the student" if name == "student" else name
    ranks = counted(trainer.num_workers, "rank")
    if trainer.engine != "deepspeed" or trainer.num_gpus_per_worker > 0 or is_compiled():
        return f"starting {owner}'s worker group ({ranks})"
    return (
        f"starting {owner}'s worker group ({ranks}); on the first run on a machine DeepSpeed "
        "compiles an operator, which takes about a minute"
    )


@contextmanager
def serve_teachers(d: Driver, expert_jobs: list[Job]) -> Iterator[Guidance | None]:
    """The teachers, served; None for an experiment without any."""
    experiment = d.experiment
    if not experiment.has_teachers:
        yield None
        return
    with _served(d, _teachers_of(d, expert_jobs)) as guidance:
        yield guidance


@contextmanager
def _served(d: Driver, guidance: Guidance) -> Iterator[Guidance]:
    """The same teachers, served."""
    from distill.teachers.pool import RayTeacherPool  # imports ray: only after connect()

    experiment, served = d.experiment, list(guidance.served)
    _open_cache(d, served, d.memory.answers(experiment.cache))
    names = ", ".join(spec.name for spec in served)
    d.progress.say(f"starting {counted(len(served), 'teacher')}: {names}")
    wait_s, transport = experiment.cluster.start_deadline_s, experiment.stream.transport
    with RayTeacherPool(served, wait_s, transport) as pool:
        d.interrupt.check()
        yield replace(guidance, client=pool.client(experiment.stream))


def _teachers_of(d: Driver, expert_jobs: list[Job]) -> Guidance:
    """The experiment's teachers, not yet served."""
    teachers, router = _teacher_specs(d, expert_jobs)
    return _guidance(d, teachers, router, d.experiment.aggregation)


def _guidance_of_link(d: Driver, link: Job) -> Guidance:
    """A chain's link, which is exported, as the only teacher; not yet served."""
    experiment, folder, shared = d.experiment, str(link.model_folder), None
    serving = serving_of_link(experiment)
    if experiment.is_language_model and not experiment.objective.crosses_tokenizers:
        shared = shared_tokens(d.plan.tokenizer, {link.name: folder})[link.name]
    spec = teacher_spec(
        d, link.name, folder, serving, len(d.plan.corpus.label_names), shared=shared
    )
    return _guidance(d, [spec], None, UniformMean())


def _guidance(
    d: Driver, teachers: list[TeacherSpec], router: TeacherSpec | None, aggregation: Aggregation
) -> Guidance:
    served = [*teachers, *([router] if router else [])]
    shared = d.memory.answers(d.experiment.cache)
    return Guidance(
        client=SilentTeachers(tuple(spec.name for spec in served)),
        teachers=tuple(teachers),
        router=router,
        aggregation=aggregation,
        stream=d.experiment.stream,
        cache=d.experiment.cache,
        cache_folder=str(shared or d.run.root / "cache"),
        by_content=shared is not None,
    )


def _open_cache(d: Driver, served: list[TeacherSpec], shared: Path | None) -> None:
    """Print, once and here, the messages that ranks would print where nobody reads them.

    ``shared``: the folder of the outputs in the shared memory, which are held from here on.
    """
    keys = {spec.name: spec.key for spec in served if not spec.serving.moe.changes}
    if shared is not None:
        for name, key in keys.items():
            d.memory.hold(home_of(shared, name, key, by_content=True))
    folder = shared or d.run.root / "cache"
    cache = open_cache(d.experiment.cache, folder, keys, "driver", shared is not None)
    for message in cache.messages:
        d.progress.say(message)
    cache.close()


def _key(d: Driver, folder: str, serving: Serving, weights: str) -> TeacherKey:
    """``weights``: their fingerprint. Its columns that are shared with the student come later."""
    data = d.experiment.data
    has_tokens = d.plan.corpus.features is None and not is_pickle(folder)
    is_read_anew = has_tokens and not d.experiment.is_language_model and was_read_at_padding(folder)
    return TeacherKey(
        # The arithmetic decides the output as much as the weights do.
        weights=f"{weights}-{serving.dtype}",
        data=shown_to(d.plan, folder).fingerprint,
        tokenizer=tokenizer_fingerprint(folder) if has_tokens else "none",
        wire=serving.wire.name,
        max_length=data.max_length if has_tokens else 0,
        cut=data.cut if has_tokens else "head",
        moe=serving.moe.type,
        pooling="mask" if is_read_anew else "",
    )


def teacher_spec(
    d: Driver,
    name: str,
    folder: str,
    serving: Serving,
    num_outputs: int,
    adapter: str | None = None,
    shared: SharedTokens | None = None,
    fingerprint: Callable[[str], str] = weights_fingerprint,
) -> TeacherSpec:
    """A teacher as it is served. ``num_outputs``: classes; for language models not read."""
    weights = file_fingerprint(folder) if is_pickle(folder) else fingerprint(folder)
    if adapter is not None:
        weights = f"{weights}-{adapter_fingerprint(adapter)}"
    is_language_model = d.experiment.is_language_model
    wire = serving.wire.resolved(is_language_model, serving.dtype)
    serving = serving.model_copy(update={"wire": wire})
    key = _key(d, folder, serving, weights)
    if is_language_model:
        num_outputs = num_ids(load_tokenizer(folder))
    if shared is not None:
        key, num_outputs = replace(key, shared=shared.name), shared.width
    columns = d.plan.columns.get(name)
    return TeacherSpec(
        name, folder, serving, num_outputs, key, is_language_model, adapter, columns, shared
    )


def _teacher_specs(d: Driver, jobs: list[Job]) -> tuple[list[TeacherSpec], TeacherSpec | None]:
    experiment, corpus = d.experiment, d.plan.corpus
    num_labels = len(corpus.label_names)
    is_language_model = experiment.is_language_model
    fingerprint = cache(weights_fingerprint)  # of a base that many share, once
    shared: dict[str, SharedTokens] = {}

    def spec(
        name: str, folder: str, serving: Serving, num_outputs: int, adapter: str | None = None
    ) -> TeacherSpec:
        return teacher_spec(
            d, name, folder, serving, num_outputs, adapter, shared.get(name), fingerprint
        )

    experts, aggregation = experiment.experts, experiment.aggregation
    are_compared = is_language_model and not experiment.objective.crosses_tokenizers
    given = aggregation.router if isinstance(aggregation, Routed) else None
    if experts is not None:
        folders = {job.name: str(job.model_folder) for job in jobs}
        router = given or folders.pop(ROUTER, None)
        if are_compared:
            bases = folders if experts.lora is None else dict.fromkeys(folders, experts.base)
            shared.update(shared_tokens(d.plan.tokenizer, bases))
        if experts.lora is None:
            teachers = [spec(n, f, experts.serving, num_labels) for n, f in folders.items()]
        else:
            base = experts.base
            teachers = [spec(n, base, experts.serving, num_labels, f) for n, f in folders.items()]
        serving = experts.router.serving if experts.router else experts.serving
    else:
        router = given
        if are_compared:
            folders = {t.name: str(t.path) for t in experiment.teachers}
            shared.update(shared_tokens(d.plan.tokenizer, folders))
        teachers = [spec(t.name, t.path, t, num_labels, t.adapter) for t in experiment.teachers]
        first = teachers[0].serving
        serving = Serving(num_cpus=first.num_cpus, node_labels=first.node_labels)
    if router is None:
        return teachers, None
    if isinstance(aggregation, Routed) and given is not None:
        serving = serving.model_copy(update={"allow_pickle": aggregation.allow_pickle})
    return teachers, spec(ROUTER, router, serving, len(teachers))
