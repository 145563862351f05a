"""Checks of everything that is known before a process starts: refused here, or a line of the plan.

The data is read once, into the cache that training uses: labels, empty texts and missing splits are
known only then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from distill.config import SPLITS, Experiment
from distill.config.keys_of_tasks import check_fits
from distill.config.memory import check_memory
from distill.config.search import Search
from distill.data.corpus import Corpus
from distill.driver.checks.components import component_lines
from distill.driver.checks.enough_rows import check_batches, check_parts
from distill.driver.checks.link_sizes import check_sweep_of_chain, with_chain
from distill.driver.checks.paths import check_paths
from distill.driver.checks.resources import Resources, check_resources, check_transport
from distill.driver.context import Command
from distill.driver.warm_start import check_warm_start, warm_start_lines
from distill.errors import ConfigError
from distill.records import Line
from distill.run_folder import RunFolder, identity
from distill.search.plan import plan_search
from distill.tasks import task_of
from distill.tasks.checks.ensemble import check_names
from distill.tasks.checks.loaded import LoadedInputs
from distill.tasks.checks.moe import check_kept
from distill.tasks.checks.sampling import check_sampling, sampling_lines
from distill.tasks.checks.temperature import check_schedule, schedule_lines
from distill.tasks.plan import Plan
from distill.training.checkpoints import check_is_recent, newest

Say = Callable[[str], None]


def check(
    experiment: Experiment, say: Say = lambda message: None, command: Command = "train"
) -> Plan:
    """The plan of a valid experiment; InputError names the key, the value and the fix.

    ``say`` gets a line before each phase that takes long.
    """
    _check_configuration(experiment, command)
    found = task_of(experiment).read(experiment, say)
    check_batches(experiment, found.rows)
    check_schedule(experiment, found.rows)
    check_names(experiment, found.names)
    check_parts(experiment, found.expert_rows, found.base)
    student_lines = found.student_lines()
    resources = check_resources(
        experiment,
        len(found.names),
        found.teachers,
        found.base,
        found.adapters,
        found.expert_updates,
    )
    experiment = resources.experiment
    described = identity(experiment, found.rows.fingerprint)
    model_lines = [*student_lines, *_search_lines(experiment, found, command)]
    if command == "sweep":
        described["command"] = command  # its folder holds trials, not a student
    is_resuming = _is_resuming(experiment, described)
    lines = [*_lines(resources, found, model_lines)]
    if command == "train":
        lines += warm_start_lines(experiment)
    plan = Plan(
        experiment,
        found.corpus,
        found.rows,
        found.names,
        found.tokenizer,
        found.features,
        is_resuming,
        described,
        resources.num_cpus,
        resources.num_gpus,
        (*lines, _output_line(experiment, is_resuming)),
        found.columns,
    )
    if found.base is not None:
        updates = {"experts.base": found.expert_updates or 0}
        return with_chain(plan, {"experts.base": found.base}, updates)
    return with_chain(plan, found.teachers, found.adapters)


def check_keys(experiment: Experiment, ignored: tuple[str, ...] = ()) -> None:
    """Raise ConfigError for keys and values that do not go together.

    Needs no data and no model folder. ``ignored``: keys that the command does not read.
    """
    check_fits(experiment, experiment.task, ignored)
    task_of(experiment).check_settings(experiment)


def _check_configuration(experiment: Experiment, command: Command) -> None:
    """Checks that read no data and no model folder."""
    check_keys(experiment, ("warm_start",) if command == "sweep" else ())
    if command == "train":
        check_warm_start(experiment)
    check_sampling(experiment)
    check_transport(experiment)
    if command == "sweep" and experiment.sampling.generates:
        raise ConfigError(
            f"sampling.type {experiment.sampling.type} generates new text at every step, but a "
            "sweep queries its teachers only once, for the rows of the data set: run distill "
            "train for each setting, or use sampling.type dataset"
        )
    if command == "sweep":
        check_sweep_of_chain(experiment)
    check_paths(experiment)
    check_memory(experiment.memory)


def _search_lines(experiment: Experiment, found: LoadedInputs, command: Command) -> list[Line]:
    """Raises ConfigError for a search that no trial could serve."""
    if command == "train" and experiment.search is None:
        return []
    check_trial = found.trial_check()
    if command == "sweep":
        check_kept(experiment)

    def fits(trial: Experiment) -> None:
        check_fits(trial, trial.task, ("warm_start",))
        check_trial(trial)

    goal = task_of(experiment).goal
    return [Line(*part) for part in plan_search(experiment, goal, fits)]


def _lines(resources: Resources, found: LoadedInputs, model_lines: list[Line]) -> Iterator[Line]:
    experiment = resources.experiment
    yield from found.data_lines()
    yield from sampling_lines(experiment)
    yield from component_lines(experiment, len(found.names), found.rows)
    yield from schedule_lines(experiment, found.rows)
    yield from found.cost_lines(experiment)
    yield from resources.lines
    yield from found.teacher_lines()
    yield from model_lines


def _is_resuming(experiment: Experiment, described: dict[str, Any]) -> bool:
    """Whether the run folder already holds this experiment; raises where it cannot be resumed."""
    run = RunFolder(experiment.output)
    is_resuming = run.check(described)
    if is_resuming and not run.finished.exists():
        check_is_recent(run.fit, experiment.aggregation.version)
    return is_resuming


def _output_line(experiment: Experiment, is_resuming: bool) -> Line:
    """The folder that the run will use, and what it will do there."""
    run = RunFolder(experiment.output)
    if not is_resuming:
        return Line("output", str(run.root), "new")
    last = newest(run.fit / "checkpoints")
    state = "resumes; the student has no checkpoint yet"
    if (run.fit / "done.json").exists():
        state = "the student is trained"
    elif last is not None:
        state = f"resumes from step {int(last.name.removeprefix('step-'))}"
    return Line("output", str(run.root), state)


def about(corpus: Corpus) -> dict[str, Any]:
    """A checked data set as JSON: rows of each split, names of the labels in class order, and the
    source of each split."""
    return {
        "rows": {split: len(corpus.rows(split)) for split in SPLITS},
        "labels": list(corpus.label_names),
        "sources": corpus.sources,
    }


def search_of(plan: Plan) -> Search:
    """The search of a plan that :func:`check` made for the command ``sweep``."""
    assert plan.experiment.search is not None
    return plan.experiment.search.resolved(plan.task.goal)
