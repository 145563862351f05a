"""``distill evaluate``: an exported student on any labelled file, compared with its teacher."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from distill.aggregation import OracleDomain
from distill.config import Data
from distill.config.tasks import task_named
from distill.config.values import masked
from distill.data.corpus import Corpus, build_corpus
from distill.driver.evaluate.subjects import (
    LABELS_OPTION,
    PREFIX,
    Part,
    Subject,
    check_student,
    is_run,
    matched,
    run_of,
    served,
    student_of,
    teacher_of,
)
from distill.errors import ConfigError, DataError, InputError, UnknownLabelError
from distill.evaluation.assess import Assessment, EvaluationProgress, EvaluationTask, assess
from distill.evaluation.attacks import METHODS
from distill.evaluation.classifiers import TokenEncoder
from distill.evaluation.efficiency import Efficiency, folder_size_mb, measure, measure_on_cpu
from distill.evaluation.evaluated import Evaluated, EvaluationRequest
from distill.evaluation.gate import QualityGate, check_metric, parse_gate
from distill.evaluation.leakage import ADVICE, Accuracies, fell, suspicious
from distill.evaluation.majority import majority
from distill.evaluation.names import metric_names, needs_attacks
from distill.evaluation.samples import read_samples
from distill.evaluation.settings import Evaluation, parse_kind
from distill.evaluation.source import CODE, EvaluationSource, as_options, check_split, reading_of
from distill.export.kinds import kind_of
from distill.models.labels import Outputs, class_orders, shown
from distill.models.load import check_folder, load_classifier
from distill.run_folder import configuration_of
from distill.tasks.checks.ensemble import check_aggregation
from distill.tasks.classification.labels import corpus_in, labels_in
from distill.teachers.probability import is_pickle
from distill.wording import percent


def evaluate(request: EvaluationRequest, progress: EvaluationProgress) -> Evaluated:
    """All measures; gates are checked before anything is computed, and compared at the end.

    Columns that ``request.source`` does not name are those of the student's run; labels of data and
    teachers are matched by name with the student's. Texts are truncated as in training where the
    export declares it. Raises InputError for a folder, column, label, language, gate or setting
    that cannot be used.
    """
    if request.source.language is not None:
        parse_kind(request.source.language)
    gates = [parse_gate(text) for text in request.fail_if]
    request = replace(request, settings=_with_attacks(request, gates))
    folder = run_of(request.student)
    run = None if folder is None else configuration_of(folder)
    check_split(request.source, run)
    _check_kinds(request)
    check_student(request.student)
    student = student_of(request.student, request.max_length)
    teacher = _teacher(request)
    if teacher is not None:
        teacher = matched(student, teacher)
    progress.say(f"reading {masked(request.source.path)}")
    part = student.parts[0]
    with _as_options():
        read = reading_of(request.source, part.folder, part.num_features, run, str(folder))
        corpus = _corpus(read.data, part)
    for note in read.notes:
        progress.say(note)
    task = _task(request.source, read.data, corpus, student, progress)
    if teacher is not None:
        _check_oracle(teacher, corpus, read.data)
    known = metric_names(task, request.settings, teacher is not None)
    for gate in gates:
        check_metric(gate, known)
    subjects = [student] if teacher is None else [student, teacher]
    with served(subjects, request.settings) as classifiers:
        found = assess(
            classifiers[0],
            classifiers[1] if teacher is not None else None,
            task,
            request.settings,
            progress,
        )
    progress.say("measuring size, latency and memory")
    costs = {s.name: cost for s in subjects if (cost := _cost(s)) is not None}
    metrics = found.metrics | _cost_metrics(student, teacher, costs, request.settings)
    metrics |= _relative(found)
    metrics |= _counts(task, student.parts[0], found.notes)
    found.notes[:0] = read.notes
    warnings = _warnings(task, metrics, request, folder)
    failures = _failures(gates, metrics)
    return Evaluated(request, task, found, metrics, costs, failures, read.data, warnings)


def _with_attacks(request: EvaluationRequest, gates: Sequence[QualityGate]) -> Evaluation:
    """The settings, with all attacks where ``attacks`` or a gate needs some and none is named.

    Raises ConfigError where the settings leave them out.
    """
    settings = request.settings
    reasons = ["--attacks"] if request.attacks else []
    reasons += [f"--fail-if '{gate}'" for gate in gates if needs_attacks(gate.metric)]
    if not reasons or settings.attack.methods:
        return settings
    if "methods" in settings.attack.model_fields_set:
        raise ConfigError(
            f"{reasons[0]} needs attacks, but attack.methods=[] disables them: remove one of the "
            "two"
        )
    attack = settings.attack.model_copy(update={"methods": tuple(METHODS)})
    return settings.model_copy(update={"attack": attack})


def _warnings(
    task: EvaluationTask,
    metrics: Mapping[str, float | None],
    request: EvaluationRequest,
    run: Path | None,
) -> tuple[str, ...]:
    """On a student without skill, and a teacher that may have been trained on test rows."""
    accuracy, teacher = metrics["test.accuracy"], metrics.get("teacher.test.accuracy")
    assert accuracy is not None
    found = []
    if note := majority(task.labels_R, task.label_names).note(accuracy):
        found.append(f"the student ({percent(accuracy)}) is {note}")
    if teacher is None or not _has_ready_teachers(request):
        return tuple(found)
    if suspicious({"teacher": teacher}, {"student": accuracy}):
        found.append(
            f"the teacher has {percent(teacher)}, the student {percent(accuracy)}: the teacher "
            f"{ADVICE}"
        )
    before = None if request.teachers or run is None else _on_test_split(run)
    if before is not None and fell(before, Accuracies(accuracy, teacher), len(task.samples)):
        found.append(
            f"the teacher fell from {percent(before.teacher)} on the run's test split to "
            f"{percent(teacher)} here, the student from {percent(before.student)} to "
            f"{percent(accuracy)}: the teacher may have been trained on that test split, whose "
            "rows must not be in its training data"
        )
    return tuple(found)


def _has_ready_teachers(request: EvaluationRequest) -> bool:
    """Whether some teacher was trained elsewhere; experts of a run read its train split alone."""
    paths = request.teachers or (str(request.student),)
    return any(not is_run(path) or configuration_of(path).teachers for path in paths)


def _on_test_split(run: Path) -> Accuracies | None:
    """What the run's own report has; None for one without teachers or report."""
    try:
        metrics = json.loads((run / "report" / "metrics.json").read_text("utf-8"))
        return Accuracies(float(metrics["test.accuracy"]), float(metrics["test.teacher_accuracy"]))
    except (OSError, ValueError, KeyError):
        return None


def _check_kinds(request: EvaluationRequest) -> None:
    """Before anything looks for the labels of a model. Raises ConfigError for one without."""
    for path in (request.student, *map(Path, request.teachers)):
        folder = path / "student" if is_run(path) else path
        if is_pickle(folder) or not (folder / "config.json").is_file():
            continue  # refused, or read, by its own name
        task_named(kind_of(folder).task).check_evaluated(path)


def _teacher(request: EvaluationRequest) -> Subject | None:
    """The one that is given; of a run by default its own, where it had any."""
    if request.teachers:
        return teacher_of(
            request.teachers, request.allow_pickle, request.max_length, request.teacher_labels
        )
    if request.teacher_labels:
        raise ConfigError(f"{LABELS_OPTION} needs --teacher: give the model whose labels it maps")
    run = request.student
    if not is_run(run) or not configuration_of(run).has_teachers:
        return None
    try:
        return teacher_of((str(run),), request.allow_pickle, request.max_length)
    except InputError as error:
        raise type(error)(
            f"{error}; to evaluate without the teachers of the run, give {run / 'student'}"
        ) from None


def _check_oracle(teacher: Subject, corpus: Corpus, data: Data) -> None:
    """Teachers chosen by a row's domain: every row needs one that is called so."""
    if not isinstance(teacher.aggregation, OracleDomain):
        return
    if data.columns.domain is None:
        raise ConfigError(
            f"{teacher.name} are selected by the domain of each row: give its column with "
            "--domain-column"
        )
    names = tuple(part.name.removeprefix(PREFIX) for part in teacher.parts)
    check_aggregation(teacher.aggregation, names, corpus)


def _failures(gates: Sequence[QualityGate], metrics: dict[str, float | None]) -> list[str]:
    # A transformation that applied to no row has no metrics.
    whole = {gate.metric: metrics.get(gate.metric) for gate in gates}
    return [failure for gate in gates if (failure := gate.failure(whole)) is not None]


# ---- the data --------------------------------------------------------------------------------


def _corpus(data: Data, part: Part) -> Corpus:
    corpus = _labelled(data, part)
    if corpus.features is not None and corpus.features.num != part.num_features:
        raise DataError(
            f"{data.path} has {corpus.features.num} features in "
            f"{', '.join(corpus.features.columns)}, {part.folder} was trained on "
            f"{part.num_features}: give data of the same kind"
        )
    return corpus


def _labelled(data: Data, part: Part) -> Corpus:
    """Under the student's labels; those of one whose outputs are LABEL_i may be the integers."""
    description = f"the student {part.folder}"
    orders = class_orders(Outputs(description, part.label_names))
    try:
        return corpus_in(orders, lambda names: build_corpus(data, labels=names, only="test"))
    except UnknownLabelError as error:
        raise UnknownLabelError(
            f"{error.fault} of {description}; the data has {shown(labels_in(data))}: correct the "
            "label, or remove the row"
        ) from None


@contextmanager
def _as_options() -> Iterator[None]:
    """Messages name the options of this command, not the keys of an experiment."""
    try:
        yield
    except InputError as error:
        raise type(error)(as_options(str(error))) from None


def _task(
    source: EvaluationSource,
    data: Data,
    corpus: Corpus,
    student: Subject,
    progress: EvaluationProgress,
) -> EvaluationTask:
    samples = read_samples(corpus, corpus.rows("test"))
    sd_D = None
    kind = None
    if corpus.features is not None:
        if source.language is not None:
            raise ConfigError(f"--language {source.language}: {student.name} reads features")
        # Of the rows themselves: the corpus knows moments of train rows, and here there are none.
        sd_D = np.stack([sample.features_D for sample in samples]).std(0, dtype=np.float64)  # type: ignore[arg-type]
    elif source.language is not None:
        kind = parse_kind(source.language)
    elif data.columns.text != CODE:
        kind = "text"
    else:
        progress.say(
            f"transformations and attacks are skipped: give the language of the column {CODE} with "
            "--language"
        )
    return EvaluationTask(samples, corpus.label_names, corpus.domain_names, kind, sd_D)


# ---- efficiency -------------------------------------------------------------------------------


def _cost(subject: Subject) -> Efficiency | None:
    """On one CPU thread, of a single model with weights."""
    part = subject.parts[0]
    if subject.aggregation is not None or is_pickle(part.folder):
        return None
    return measure_on_cpu(load_classifier(part.folder, part.serving.allow_pickle), part.max_length)


def _cost_metrics(
    student: Subject, teacher: Subject | None, costs: dict[str, Efficiency], settings: Evaluation
) -> dict[str, float | None]:
    """``student.*`` as in training, and the GPU's latency where one was used."""
    part, cost = student.parts[0], costs["student"]
    metrics: dict[str, float | None] = {
        "student.params": float(cost.params),
        "student.size_mb": folder_size_mb(part.folder),
        "student.latency_ms": cost.latency_ms,
        "student.latency_p95_ms": cost.latency_p95_ms,
        "student.gflops": cost.gflops,
        "student.peak_memory_mb": cost.peak_memory_mb,
    }
    if settings.on_device == "cuda":
        on_gpu = measure(load_classifier(part.folder).to("cuda"), part.max_length)  # type: ignore[arg-type]
        metrics["student.gpu_latency_ms"] = on_gpu.latency_ms
        metrics["student.gpu_latency_p95_ms"] = on_gpu.latency_p95_ms
        metrics["student.gpu_peak_memory_mb"] = on_gpu.peak_memory_mb
    if teacher is not None:
        params = _params(teacher)
        if params is not None:
            metrics["compression"] = params / cost.params
    return metrics


def _params(teacher: Subject) -> float | None:
    """Of its largest model; None where one has no weights that could be counted."""
    if any(is_pickle(part.folder) for part in teacher.parts):
        return None
    return float(
        max(check_folder(p.folder, p.serving.allow_pickle).num_params for p in teacher.parts)
    )


def _relative(found: Assessment) -> dict[str, float | None]:
    if found.teacher is None:
        return {}
    accuracy, teacher = found.metrics["test.accuracy"], found.metrics["teacher.test.accuracy"]
    assert accuracy is not None and teacher is not None
    return {
        "test.teacher_accuracy": teacher,
        "test.retention": accuracy / teacher if teacher else None,
    }


def _counts(task: EvaluationTask, part: Part, notes: list[str]) -> dict[str, float | None]:
    """Rows, and rows that are longer than the student's length."""
    num_cut = 0
    encode = part.encode()
    if isinstance(encode, TokenEncoder):
        num_cut = encode.num_cut(task.samples)
    if num_cut:
        notes.append(
            f"{num_cut} of {len(task.samples)} rows are truncated to {part.max_length} tokens "
            f"(data.cut: {part.cut})"
        )
    return {"test.rows": float(len(task.samples)), "test.truncated_rows": float(num_cut)}
