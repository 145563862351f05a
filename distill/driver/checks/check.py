"""Checks of everything that is known before a process starts: refused here, or a line of the plan.

The data is read once, into the cache that training uses: labels, empty texts and missing splits are
known only then.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from distill.config import SPLITS, Experiment, KMeans, LabelsOnly, Student
from distill.config.memory import check_memory
from distill.config.search import Search
from distill.data.blocks import Blocks
from distill.data.content import DocumentContent
from distill.data.corpus import Corpus, build_corpus
from distill.driver.checks.chain import check_sweep_of_chain, with_chain
from distill.driver.checks.components import component_lines
from distill.driver.checks.cost import cost_lines
from distill.driver.checks.paths import check_paths
from distill.driver.checks.resources import check_resources, check_transport
from distill.driver.warm_start import check_warm_start, warm_start_lines
from distill.errors import ConfigError, DataError
from distill.experts.jobs import ROUTER
from distill.models.features import FeatureSpace
from distill.models.language import LanguageInfo
from distill.models.load import FolderInfo, check_folder, load_tokenizer
from distill.models.shape import as_begun
from distill.models.sizes import solve
from distill.models.student import check_start
from distill.records import Line
from distill.run_folder import RunFolder, identity
from distill.search.plan import plan_search
from distill.tasks.checks.data import counts_of, source_lines
from distill.tasks.checks.ensemble import (
    check_aggregation,
    check_names,
    check_router,
    teacher_names,
)
from distill.tasks.checks.objective import check_classes, check_objective
from distill.tasks.checks.temperature import check_schedule, schedule_lines
from distill.tasks.classification.inputs import (
    check_kind,
    check_teachers,
    read_info,
    space_of,
    student_line,
)
from distill.tasks.classification.labels import (
    columns_by_name,
    label_lines,
    match_teachers,
    read_data,
    teacher_outputs,
)
from distill.tasks.language_model.check import (
    block_lines,
    check_languages,
    check_range_of_temperatures,
    check_task,
    check_updates,
    gate_lines,
    language_lines,
    open_blocks,
    read_languages,
    served_models,
    template_lines,
    tokenizer_lines,
    trial_check,
)
from distill.tasks.language_model.moe import check_kept
from distill.tasks.language_model.sampling import check_sampling, check_speakers, sampling_lines
from distill.tasks.language_model.tokenizers import check_aligned
from distill.tasks.plan import Plan
from distill.teachers.probability import is_pickle
from distill.training.checkpoints import check_is_recent, newest
from distill.wording import counted

Say = Callable[[str], None]
Command = Literal["train", "sweep"]


def check(
    experiment: Experiment, say: Say = lambda message: None, command: Command = "train"
) -> Plan:
    """The plan of a valid experiment; InputError names the key, the value and the fix.

    ``say`` gets a line before each phase that takes long.
    """
    check_task(experiment)
    if command == "train":
        check_warm_start(experiment)
    check_sampling(experiment)
    check_transport(experiment)
    if command == "sweep" and experiment.sampling.writes:
        raise ConfigError(
            f"sampling.type {experiment.sampling.type} generates new text at every step, but a "
            "sweep queries its teachers only once, for the rows of the data set: run distill "
            "train for each setting, or use sampling.type dataset"
        )
    if command == "sweep":
        check_sweep_of_chain(experiment)
    if not experiment.is_language_model:
        check_kind(experiment)
    check_paths(experiment)
    check_memory(experiment.memory)
    if experiment.is_language_model:
        return _check_language(experiment, say, command)
    infos = {t.name: read_info(t.path, t.allow_pickle) for t in experiment.teachers}
    outputs = teacher_outputs(experiment, infos)
    base = read_info(experiment.experts.base, False) if experiment.experts else None
    say("reading the data")
    corpus = read_data(experiment, outputs)
    matches = match_teachers(experiment, outputs, corpus)
    space = space_of(experiment.data, corpus)
    check_teachers(experiment, corpus, infos)
    names = teacher_names(experiment, corpus)
    check_aggregation(experiment.aggregation, names, corpus)
    check_classes(experiment, len(corpus.label_names))
    router = check_router(experiment, names, corpus)
    if router is not None:
        matches[ROUTER] = router
    columns = columns_by_name(matches)
    tokenizer = tokenizer_folder(experiment) if space is None else ""
    _check_lengths(experiment, infos, base)
    _check_batches(experiment, corpus)
    check_schedule(experiment, corpus)
    check_names(experiment, names)
    _check_parts(experiment, corpus, base)
    student_lines = _student_lines(experiment, corpus, tokenizer, space)
    resources = check_resources(experiment, len(names), infos, base)
    experiment = resources.experiment
    described = identity(experiment, corpus.fingerprint)
    search_lines: list[tuple[str, str, str]] = []
    if command == "sweep" or experiment.search is not None:
        check_size = _sizes(experiment, corpus, tokenizer, space)

        def check_trial(trial: Experiment) -> None:
            check_size(trial.student)
            check_objective(trial)
            check_classes(trial, len(corpus.label_names))
            check_aggregation(trial.aggregation, names, corpus)
            check_schedule(trial, corpus)

        search_lines = plan_search(experiment, check_trial)
    if command == "sweep":
        described["command"] = command  # its folder holds trials, not a student
    is_resuming = _is_resuming(experiment, described)
    lines = (
        *_data_lines(experiment, corpus),
        *label_lines(matches),
        *component_lines(experiment, len(names), corpus),
        *schedule_lines(experiment, corpus),
        *resources.lines,
        *student_lines,
        *(Line(*told) for told in search_lines),
        *(warm_start_lines(experiment) if command == "train" else ()),
        _output_line(experiment, is_resuming),
    )
    plan = Plan(
        experiment,
        corpus,
        corpus,
        names,
        tokenizer,
        space,
        is_resuming,
        described,
        resources.num_cpus,
        resources.num_gpus,
        lines,
        columns,
    )
    return with_chain(plan, infos if base is None else {"experts.base": base})


def _check_language(experiment: Experiment, say: Say, command: Command) -> Plan:
    """As :func:`check`, for language models."""
    languages = read_languages(experiment)
    check_languages(experiment, languages)
    say("reading the data")
    corpus = build_corpus(experiment.data, experiment.seed, content=DocumentContent)
    say("packing it into blocks")
    blocks = open_blocks(experiment, corpus, languages.tokenizer)
    served = served_models(experiment, languages)
    check_aligned(experiment, served, languages.tokenizer, blocks)
    if experiment.experts is not None:
        own = open_blocks(experiment, corpus, experiment.experts.base)
        _check_parts(experiment, own, languages.base)
    names = teacher_names(experiment, corpus)
    check_aggregation(experiment.aggregation, names, blocks)
    check_names(experiment, names)
    check_speakers(experiment, languages, tuple(names))
    _check_batches(experiment, blocks, "blocks")
    check_schedule(experiment, blocks)
    student_lines = language_lines(experiment, languages.tokenizer)
    resources = check_resources(
        experiment,
        len(names),
        languages.teachers,
        languages.base,
        {name: info.num_params for name, info in languages.adapters.items()},
        check_updates(experiment),
    )
    experiment = resources.experiment
    described = identity(experiment, blocks.fingerprint)
    search_lines: list[tuple[str, str, str]] = []
    if command == "sweep" or experiment.search is not None:
        check_range_of_temperatures(experiment)
        if command == "sweep":
            check_kept(experiment)
        check_trial = trial_check(experiment, languages, names, blocks)
        search_lines = plan_search(experiment, check_trial)
    if command == "sweep":
        described["command"] = command
    is_resuming = _is_resuming(experiment, described)
    lines = (
        *block_lines(corpus, blocks),
        *template_lines(experiment, languages),
        *sampling_lines(experiment),
        *component_lines(experiment, len(names), blocks),
        *schedule_lines(experiment, blocks),
        *cost_lines(experiment, languages, names, blocks),
        *resources.lines,
        *gate_lines(experiment, languages),
        *tokenizer_lines(languages),
        *(Line(*told) for told in [*student_lines, *search_lines]),
        _output_line(experiment, is_resuming),
    )
    plan = Plan(
        experiment,
        corpus,
        blocks,
        names,
        languages.tokenizer,
        None,
        is_resuming,
        described,
        resources.num_cpus,
        resources.num_gpus,
        lines,
    )
    if languages.base is not None:
        updates = {"experts.base": check_updates(experiment) or 0}
        return with_chain(plan, {"experts.base": languages.base}, updates)
    updates = {name: adapter.num_params for name, adapter in languages.adapters.items()}
    return with_chain(plan, languages.teachers, updates)


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
    return plan.experiment.search.resolved(plan.experiment.is_language_model)


def _check_parts(
    experiment: Experiment, rows: Corpus | Blocks, base: FolderInfo | LanguageInfo | None
) -> None:
    """Raise unless every expert has rows, and no more layers to train than there are."""
    experts = experiment.experts
    if experts is None or base is None:
        return
    asked = {"experts.train_layers": experts.train_layers}
    if experts.router is not None and not experiment.is_language_model:
        asked["experts.router.layers"] = experts.router.layers
        asked["experts.router.train_layers"] = experts.router.train_layers
    for key, layers in asked.items():
        if layers is not None and layers > base.num_layers:
            raise ConfigError(f"{key} is {layers}, {experts.base} has {base.num_layers} layers")
    if isinstance(experts.partition, KMeans):
        return
    called = "blocks" if isinstance(rows, Blocks) else "rows"
    way_out = "" if isinstance(rows, Blocks) else ", or use experts.partition.type 'kmeans'"
    for split in ("train", "validation"):
        domains = rows.domains_of(rows.rows(split))
        for part, name in enumerate(rows.domain_names):
            num_rows = int((domains == part).sum())
            if num_rows == 0:
                raise DataError(
                    f"the domain {name!r} has no {split} rows: an expert needs them; remove its "
                    f"rows{way_out}"
                )
            if split == "train" and num_rows < experts.batch_size:
                raise ConfigError(
                    f"experts.batch_size {experts.batch_size} is larger than the {num_rows} "
                    f"training {called} of the domain {name!r}: lower it"
                )


def tokenizer_folder(experiment: Experiment) -> str:
    """Folder of the student's tokenizer; ConfigError where none is named."""
    student = experiment.student
    if student.tokenizer or student.path:
        return student.tokenizer or student.path or ""
    if student.init_from:
        return student.init_from.path
    if experiment.experts:
        return experiment.experts.base
    for teacher in experiment.teachers:
        if not is_pickle(teacher.path):
            return teacher.path
    raise ConfigError(
        "student.tokenizer is missing: without experts or teachers that are folders, name a folder "
        "with a tokenizer"
    )


def _check_lengths(
    experiment: Experiment, infos: dict[str, FolderInfo], base: FolderInfo | None
) -> None:
    limits = {f"teachers.{name}": info for name, info in infos.items()}
    if base is not None:
        limits["experts.base"] = base
    for key, info in limits.items():
        if experiment.data.max_length > info.max_positions:
            raise ConfigError(
                f"data.max_length {experiment.data.max_length} is longer than the "
                f"{info.max_positions} positions of {key}: lower it"
            )


def _check_batches(experiment: Experiment, rows: Corpus | Blocks, called: str = "rows") -> None:
    trainer = experiment.trainer
    num_rows = len(rows.rows("train"))
    if trainer.batch_size > num_rows:
        raise ConfigError(
            f"trainer.batch_size {trainer.batch_size} is larger than the training data "
            f"({num_rows} {called}): lower it"
        )
    per_rank = math.ceil(trainer.batch_size / trainer.num_workers)
    if trainer.micro_batch_size is not None and trainer.micro_batch_size > per_rank:
        raise ConfigError(
            f"trainer.micro_batch_size {trainer.micro_batch_size} is larger than a rank's share "
            f"of trainer.batch_size ({per_rank} rows): lower it"
        )
    if trainer.batch_size < trainer.num_workers:
        raise ConfigError(
            f"trainer.batch_size {trainer.batch_size} is smaller than trainer.num_workers "
            f"{trainer.num_workers}: every rank needs a row"
        )


def _data_lines(experiment: Experiment, corpus: Corpus) -> list[Line]:
    shown = "rows" if corpus.features is None else f"rows of {corpus.features.num} features"
    lines = [
        Line("data", counts_of(corpus), shown),
        *source_lines(corpus),
        Line("labels", ", ".join(corpus.label_names), f"{len(corpus.label_names)} classes"),
    ]
    if corpus.domain_names:
        lines.append(Line("domains", ", ".join(corpus.domain_names)))
    if corpus.num_dropped:
        lines.append(Line("dropped", "empty texts", f"{corpus.num_dropped:,} rows"))
    return lines


def _student_lines(
    experiment: Experiment, corpus: Corpus, tokenizer: str, space: FeatureSpace | None
) -> list[Line]:
    named: list[tuple[str, Student]] = [("student", experiment.student)]
    named += [
        (f"baseline {b.name}", b.student)
        for b in experiment.baselines
        if isinstance(b, LabelsOnly) and b.student is not None
    ]
    vocab_size = len(load_tokenizer(tokenizer)) if space is None else 0
    is_order_given = experiment.data.labels is not None
    lines = []
    for name, student in named:
        if space is not None:
            shape, num_params, size_mb = student_line(
                student, space, corpus.label_names, is_order_given
            )
            told = "" if size_mb is None else f", {size_mb:.3f} MB"
            lines.append(Line(name, shape, f"{num_params:,} parameters{told}"))
            continue
        if student.path or student.init_from:
            own = student.init_from.path if student.init_from else tokenizer
            length = experiment.data.max_length
            check_start(student, own, corpus.label_names, length, is_order_given)
            folder = student.path or (student.init_from.path if student.init_from else "")
            info = check_folder(folder)
            lines.append(Line(name, f"from {folder}", _millions(info.num_params)))
            continue
        num_tokens, length = student.vocab_size or vocab_size, experiment.data.max_length
        solved = partial(solve, student, num_tokens, len(corpus.label_names), length)
        fit = RunFolder(experiment.output).fit
        started = as_begun(student, fit, solved) if name == "student" else student
        size = solve(started, num_tokens, len(corpus.label_names), length)
        shape = (
            f"{counted(size.layers, 'layer')}, hidden {size.hidden}, "
            f"{counted(size.heads, 'head')}, ffn {size.ffn}"
        )
        training_mb = size.num_params * 16 / 1e6  # weights, gradients, AdamW's two moments
        told = (
            f"{_millions(size.num_params)}, {size.size_mb:.1f} MB ({training_mb:.0f} MB to train)"
            f"{size.unused}"
        )
        lines.append(Line(name, shape, told))
    return lines


def _sizes(
    experiment: Experiment, corpus: Corpus, tokenizer: str, space: FeatureSpace | None
) -> Callable[[Student], object]:
    """A check of a student that is built on this data; for the sizes of a search."""
    labels, is_order_given = corpus.label_names, experiment.data.labels is not None
    if space is not None:
        return lambda student: student_line(student, space, labels, is_order_given)
    vocab_size, length = len(load_tokenizer(tokenizer)), experiment.data.max_length

    def check_size(student: Student) -> None:
        if student.path or student.init_from:
            own = student.init_from.path if student.init_from else tokenizer
            check_start(student, own, labels, length, is_order_given)
        else:
            solve(student, student.vocab_size or vocab_size, len(labels), length)

    return check_size


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M parameters"
