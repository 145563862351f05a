"""An exported student on any labelled file, beside its teacher: what ``distill evaluate`` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from distill.aggregation import OracleDomain
from distill.check_labels import corpus_in
from distill.check_mixture import check_aggregation
from distill.config import SPLITS, Columns, Data, SplitNames
from distill.data.corpus import Corpus, build_corpus
from distill.data.source import column_names, find_files
from distill.data.split_names import split_in
from distill.errors import ConfigError, DataError, InputError, UnknownLabelError
from distill.evaluation.assess import Assessment, Listener, Task, assess
from distill.evaluation.classifiers import TokenEncoder
from distill.evaluation.efficiency import Efficiency, folder_size_mb, measure, measure_on_cpu
from distill.evaluation.gate import Gate, parse_gate
from distill.evaluation.names import metric_names
from distill.evaluation.samples import read_samples
from distill.evaluation.settings import Evaluation, parse_kind
from distill.evaluation.subjects import (
    LABELS_OPTION,
    PREFIX,
    Part,
    Subject,
    beside,
    had_teachers,
    is_run,
    served,
    student_of,
    teacher_of,
)
from distill.models.labels import Outputs, class_orders
from distill.models.load import check_folder, load_classifier, read_config
from distill.teachers.probability import is_pickle

TEXT_COLUMNS = ("text", "code")
CODE = "code"


@dataclass(frozen=True)
class Source:
    """Labelled rows in a file."""

    path: str
    text_column: str | None = None
    """None: ``text``, else ``code``; a student of features knows its own."""
    pair_column: str | None = None
    label_column: str = "label"
    domain_column: str | None = None
    split_column: str | None = None
    split: str = "test"
    """The value of ``split_column`` that is read."""
    language: str | None = None
    """c, cpp, java, python or text; None: text, unless the column is called code."""


@dataclass(frozen=True)
class Request:
    """What ``distill evaluate`` was asked for."""

    student: Path
    """An exported folder, or a run."""
    source: Source
    teachers: tuple[str, ...] = ()
    """(): of a run its own, else none."""
    teacher_labels: tuple[Mapping[str, str], ...] = ()
    """For each teacher, the student's label for labels of its own; (): matched by name."""
    allow_pickle: bool = False
    max_length: int | None = None
    fail_if: tuple[str, ...] = ()
    settings: Evaluation = field(default_factory=Evaluation)


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Everything that there is to show."""

    request: Request
    task: Task
    assessment: Assessment
    metrics: dict[str, float | None]
    costs: dict[str, Efficiency]
    """By role, where the model has weights."""
    failures: list[str]
    """Of the gates."""


def evaluate(request: Request, listener: Listener) -> Evaluated:
    """All measures; gates are checked before anything is computed, and judged at the end.

    Labels of data and teachers are matched by name with the student's, and a student of features
    names its columns itself. Texts are cut as in training where the export says so. Raises
    InputError for a folder, column, label, language, gate or setting that cannot be used.
    """
    if request.source.language is not None:
        parse_kind(request.source.language)
    _refuse_language_models(request)
    student = student_of(request.student, request.max_length)
    teacher = _teacher(request)
    if teacher is not None:
        teacher = beside(student, teacher)
    listener.say("reading the data")
    corpus = _corpus(request, student.parts[0])
    if warning := pooled_splits(request.source):
        listener.say(warning)
    task = _task(request.source, corpus, student, listener)
    if teacher is not None:
        _check_oracle(teacher, corpus, request.source)
    known = metric_names(task, request.settings, teacher is not None)
    gates = [parse_gate(text, known) for text in request.fail_if]
    subjects = [student] if teacher is None else [student, teacher]
    with served(subjects, request.settings) as classifiers:
        found = assess(
            classifiers[0],
            classifiers[1] if teacher is not None else None,
            task,
            request.settings,
            listener,
        )
    listener.say("measuring size and latency")
    costs = {s.name: cost for s in subjects if (cost := _cost(s)) is not None}
    metrics = found.metrics | _cost_metrics(student, teacher, costs, request.settings)
    metrics |= _relative(found)
    metrics |= _counts(task, student.parts[0], found.notes)
    return Evaluated(request, task, found, metrics, costs, _judge(gates, metrics))


def _refuse_language_models(request: Request) -> None:
    """Before anything looks for labels in one."""
    for path in (request.student, *map(Path, request.teachers)):
        folder = path / "student" if is_run(path) else path
        if is_pickle(folder) or not (folder / "config.json").is_file():
            continue  # refused, or read, by its own name
        saved_as = getattr(read_config(folder), "architectures", None) or [""]
        if saved_as[0].endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")):
            raise ConfigError(
                f"{path} is a language model, distill evaluate measures classifiers: its run's "
                "table (report/ in the run's folder, and MLflow) has perplexity, agreement with "
                "the teachers and exact match on the test split; for other texts, train with them "
                "as the test split of a new run, student.path this folder"
            )


def _teacher(request: Request) -> Subject | None:
    """As asked for; of a run without more words its own, where it had any."""
    if request.teachers:
        return teacher_of(
            request.teachers, request.allow_pickle, request.max_length, request.teacher_labels
        )
    if request.teacher_labels:
        raise ConfigError(f"{LABELS_OPTION} needs --teacher: name the model whose labels it maps")
    run = request.student
    if not is_run(run) or not had_teachers(run):
        return None
    try:
        return teacher_of((str(run),), request.allow_pickle, request.max_length)
    except InputError as error:
        raise type(error)(
            f"{error}; to leave the run's teachers out, evaluate {run / 'student'}"
        ) from None


def _check_oracle(teacher: Subject, corpus: Corpus, source: Source) -> None:
    """Teachers chosen by a row's domain: every row needs one that is called so."""
    if not isinstance(teacher.aggregation, OracleDomain):
        return
    if source.domain_column is None:
        raise ConfigError(
            f"{teacher.name} are chosen by a row's domain: name its column by --domain-column"
        )
    names = tuple(part.name.removeprefix(PREFIX) for part in teacher.parts)
    check_aggregation(teacher.aggregation, names, corpus)


def _judge(gates: Sequence[Gate], metrics: dict[str, float | None]) -> list[str]:
    # A transformation that applied to no row has no metrics.
    whole = {gate.metric: metrics.get(gate.metric) for gate in gates}
    return [failure for gate in gates if (failure := gate.failure(whole)) is not None]


# ---- the data --------------------------------------------------------------------------------


def _corpus(request: Request, part: Part) -> Corpus:
    source, student = request.source, part.folder
    if part.num_features:
        columns = _feature_columns(student, source)
    else:
        _check_pair(student, source.pair_column)
        columns = Columns(
            text=source.text_column or _text_column(source.path),
            text_pair=source.pair_column,
            label=source.label_column,
            domain=source.domain_column,
            split=source.split_column,
        )
    data = Data(path=source.path, columns=columns, splits=SplitNames(test=source.split))
    try:
        corpus = _labelled(data, part)
    except InputError as error:
        raise type(error)(_as_options(str(error))) from None
    if corpus.features is not None and corpus.features.num != part.num_features:
        raise DataError(
            f"{source.path} has {corpus.features.num} features in "
            f"{', '.join(corpus.features.columns)}, {student} was trained on {part.num_features}: "
            "give data of the same kind"
        )
    return corpus


def pooled_splits(source: Source) -> str | None:
    """A message where files named as several splits are measured as one; else None."""
    if source.split_column is not None:
        return None
    named: set[str | None] = set()
    for file in find_files(source.path):
        with suppress(DataError):  # a name with two splits
            named.add(split_in(file.split or file.below, SplitNames(), file))
    splits = [split for split in SPLITS if split in named]
    if len(splits) < 2:
        return None
    return (
        f"the rows of all files are measured, those of {' and '.join(splits)}: to measure one "
        "split, give its files in --data"
    )


def _labelled(data: Data, part: Part) -> Corpus:
    """Under the student's labels; those of one whose outputs are LABEL_i may be the integers."""
    description = f"the student {part.folder}"
    orders = class_orders(Outputs(description, part.label_names))
    try:
        return corpus_in(orders, lambda names: build_corpus(data, labels=names, only="test"))
    except UnknownLabelError as error:
        way_out = "correct it, or remove the row"
        raise UnknownLabelError(f"{error.fault} of {description}: {way_out}") from None


OPTIONS = {
    "data.columns.text_pair": "--pair-column",
    "data.columns.text": "--text-column",
    "data.columns.label": "--label-column",
    "data.columns.domain": "--domain-column",
    "data.columns.split": "--split-column",
    "data.splits.test": "--split",
    "data.path": "--data",
}
"""Keys of an experiment, as this command calls them."""


def _as_options(message: str) -> str:
    for key, option in OPTIONS.items():
        message = message.replace(key, option)
    return message


def _feature_columns(student: str, source: Source) -> Columns:
    if named := source.text_column or source.pair_column:
        raise ConfigError(
            f"a column with text is named ({named}), {student} reads features: leave it out"
        )
    names: list[str] = list(getattr(read_config(student), "columns", ()))
    features = names[0] if len(names) == 1 else tuple(names)
    return Columns.model_validate(
        {
            "features": features,
            "label": source.label_column,
            "domain": source.domain_column,
            "split": source.split_column,
        }
    )


def _check_pair(student: str, pair_column: str | None) -> None:
    """One that was trained on pairs answers about single texts too, but nonsense."""
    reading = check_folder(student).reading
    if reading is None or reading.is_pair == (pair_column is not None):
        return
    if reading.is_pair:
        raise ConfigError(
            f"{student} was trained on pairs of texts: name the column with the second one by "
            "--pair-column"
        )
    raise ConfigError(
        f"--pair-column {pair_column}: {student} was trained on single texts: leave it out"
    )


def _text_column(data: str) -> str:
    names = column_names(find_files(data)[0])
    for name in TEXT_COLUMNS:
        if name in names:
            return name
    raise DataError(
        f"{data} has no column {' or '.join(TEXT_COLUMNS)}, it has {', '.join(names)}: name the "
        "one with the text by --text-column"
    )


def _task(source: Source, corpus: Corpus, student: Subject, listener: Listener) -> Task:
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
    elif (source.text_column or _text_column(source.path)) != CODE:
        kind = "text"
    else:
        listener.say(
            "transformations and attacks are left out: name the language of the column "
            f"{CODE} by --language"
        )
    return Task(samples, corpus.label_names, corpus.domain_names, kind, sd_D)


# ---- what it costs ---------------------------------------------------------------------------


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


def _counts(task: Task, part: Part, notes: list[str]) -> dict[str, float | None]:
    """Rows, and rows that the student's length cuts."""
    num_cut = 0
    encode = part.encode()
    if isinstance(encode, TokenEncoder):
        num_cut = encode.num_cut(task.samples)
    if num_cut:
        notes.append(
            f"{num_cut} of {len(task.samples)} rows are cut to {part.max_length} tokens "
            f"({part.cut})"
        )
    return {"test.rows": float(len(task.samples)), "test.truncated_rows": float(num_cut)}
