"""Students that are classifiers: whether they can be built, and their lines of the plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from distill.config import Experiment, LabelsOnly, Student
from distill.data.corpus import Corpus
from distill.errors import ConfigError
from distill.models.features import FeatureSpace
from distill.models.load import check_folder, load_tokenizer
from distill.models.shape import as_begun
from distill.models.sizes import solve, solve_features
from distill.models.student import check_feature_start, check_start
from distill.records import Line
from distill.run_folder import RunFolder
from distill.teachers.probability import is_pickle
from distill.wording import counted


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


def student_lines(
    experiment: Experiment, corpus: Corpus, tokenizer: str, space: FeatureSpace | None
) -> list[Line]:
    """Part, shape and size of every student; refuses one that cannot be built."""
    named: list[tuple[str, Student]] = [("student", experiment.student)]
    named += [
        (f"baseline {b.name}", b.student)
        for b in experiment.baselines
        if isinstance(b, LabelsOnly) and b.student is not None
    ]
    if space is not None:
        is_order_given = experiment.data.labels is not None
        lines = []
        for name, student in named:
            shape, num_params, size_mb = student_line(
                student, space, corpus.label_names, is_order_given
            )
            size = "" if size_mb is None else f", {size_mb:.3f} MB"
            lines.append(Line(name, shape, f"{num_params:,} parameters{size}"))
        return lines
    vocab_size = len(load_tokenizer(tokenizer))
    labels = corpus.label_names
    return [
        _text_line(experiment, name, student, tokenizer, vocab_size, labels)
        for name, student in named
    ]


def _text_line(
    experiment: Experiment,
    name: str,
    student: Student,
    tokenizer: str,
    vocab_size: int,
    labels: tuple[str, ...],
) -> Line:
    length = experiment.data.max_length
    if student.path or student.init_from:
        own = student.init_from.path if student.init_from else tokenizer
        check_start(student, own, labels, length, experiment.data.labels is not None)
        folder = student.path or (student.init_from.path if student.init_from else "")
        info = check_folder(folder)
        return Line(name, f"from {folder}", _millions(info.num_params))
    num_tokens = student.vocab_size or vocab_size
    solved = partial(solve, student, num_tokens, len(labels), length)
    fit = RunFolder(experiment.output).fit
    started = as_begun(student, fit, solved) if name == "student" else student
    size = solve(started, num_tokens, len(labels), length)
    shape = (
        f"{counted(size.layers, 'layer')}, hidden {size.hidden}, "
        f"{counted(size.heads, 'head')}, ffn {size.ffn}"
    )
    training_mb = size.num_params * 16 / 1e6  # weights, gradients, AdamW's two moments
    mb = f"{size.size_mb:.1f} MB ({training_mb:.0f} MB to train)"
    return Line(name, shape, f"{_millions(size.num_params)}, {mb}{size.unused}")


def student_line(
    student: Student, space: FeatureSpace, labels: Sequence[str], is_order_given: bool
) -> tuple[str, int, float | None]:
    """Shape, number of parameters and MB of a student of features; raises for one that cannot be
    built."""
    check_feature_start(student, space, labels, is_order_given)
    if student.path is not None:
        return f"from {student.path}", check_folder(student.path).num_params, None
    size = solve_features(student, space, len(labels))
    return (
        f"{size.family}, {counted(size.layers, 'layer')}, hidden {size.hidden}{size.unused}",
        size.num_params,
        size.size_mb,
    )


def size_check(
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
