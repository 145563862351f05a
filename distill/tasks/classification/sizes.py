"""Sizes of classifiers and of their rows, for estimates of time and memory."""

from __future__ import annotations

from collections.abc import Callable

from distill.config import Student
from distill.data.encode import encode
from distill.models.load import check_folder
from distill.models.sizes import solve, solve_features
from distill.models.tokenizer import load_fast_tokenizer
from distill.tasks.checks.sizes import FolderSize, ModelSize, params_beyond, sample
from distill.tasks.classification.inputs import read_info
from distill.tasks.classification.specs import EncoderSpec, StudentSpec
from distill.tasks.plan import Plan
from distill.training.job import ModelSpec


def tokens_of_a_row(plan: Plan) -> float:
    """The mean, of a sample; 1 for rows of features."""
    if plan.features is not None:
        return 1.0
    data = plan.experiment.data
    texts = plan.corpus.texts_of(sample(plan.rows.rows("train")))
    found = encode(load_fast_tokenizer(plan.tokenizer), texts, data.max_length, data.cut)
    return sum(map(len, found.ids)) / len(found.ids)


def student_size(plan: Plan, student: Student) -> ModelSize:
    """Of a student that the checks have accepted."""
    num_labels, length = len(plan.corpus.label_names), plan.experiment.data.max_length
    if student.path or student.init_from:
        start = student.init_from
        folder = start.path if start else student.path or ""
        info = check_folder(folder)
        dropped = params_beyond(folder, start.layers) if start else 0
        total = info.num_params - dropped
        layers = start.layers if start else info.num_layers
        active = total - info.vocab_size * info.hidden
        return ModelSize(total, total, active, layers, info.hidden)
    if plan.features is not None:
        found = solve_features(student, plan.features, num_labels)
        num_params = found.num_params
        return ModelSize(num_params, num_params, num_params, found.layers, found.hidden)
    vocab_size = student.vocab_size or len(load_fast_tokenizer(plan.tokenizer))
    size = solve(student, vocab_size, num_labels, length)
    active = size.num_params - (vocab_size + length) * size.hidden
    return ModelSize(size.num_params, size.num_params, active, size.layers, size.hidden)


def folder_size(folder: str, allow_pickle: bool = False) -> FolderSize:
    """Of a teacher or base; 0 parameters for an object with predict_proba."""
    info = read_info(folder, allow_pickle)
    active = info.num_params - info.vocab_size * info.hidden
    return FolderSize(info.num_params, active, info.num_layers)


def spec_size(
    plan: Plan, spec: ModelSpec, size_of_folder: Callable[[str], FolderSize]
) -> tuple[int, float]:
    """Of a job's model: parameters that multiply, and operations of training for each of them and
    each token."""
    if isinstance(spec, StudentSpec):
        model = student_size(plan, spec.student)
        return model.num_active, model.per_parameter
    assert isinstance(spec, EncoderSpec)
    base = size_of_folder(spec.base).first(spec.layers)
    return base.num_active, base.per_parameter(spec.train_layers)
