"""Sizes of language models and of their rows, for estimates of time and memory."""

from __future__ import annotations

from collections.abc import Callable

from distill.config import Student
from distill.data.blocks import Blocks
from distill.models.language import check_language_folder
from distill.models.language_sizes import solve_language
from distill.models.language_student import kept_layers
from distill.models.tokenizer import load_fast_tokenizer, num_ids
from distill.tasks.checks.sizes import FolderSize, ModelSize, params_beyond, sample
from distill.tasks.language_model.folders import check_lora
from distill.tasks.language_model.specs import LanguageExpertSpec, LanguageStudentSpec
from distill.tasks.plan import Plan
from distill.training.job import ModelSpec


def tokens_of_a_row(plan: Plan) -> float:
    """The mean of a block, of a sample."""
    blocks = plan.rows
    assert isinstance(blocks, Blocks)
    return float(blocks.lengths(sample(blocks.rows("train"))).mean())


def student_size(plan: Plan, student: Student) -> ModelSize:
    """Of a student that the checks have accepted."""
    start = student.init_from
    folder = start.path if start else student.path
    if folder is None:
        size = solve_language(student, num_ids(load_fast_tokenizer(plan.tokenizer)))
        num_params = size.num_params
        return ModelSize(num_params, num_params, num_params, size.layers, size.hidden)
    info = check_language_folder(folder)
    layers = start.layers if start else info.num_layers
    dropped = 0
    if start is not None:
        kept = kept_layers(start.layers, info.num_layers, start.keep)
        dropped = params_beyond(folder, len(kept))
    total = info.num_params - dropped
    active = total - (0 if info.is_tied else info.vocab_size * info.hidden)
    trained = total
    if student.lora is not None:
        updated = check_lora("student", folder, student.lora)
        trained = sum(p.numel() for p in updated.parameters() if p.requires_grad)
        trained = round(trained * layers / info.num_layers)
        total += trained
    return ModelSize(total, trained, active, layers, info.hidden)


def folder_size(folder: str, allow_pickle: bool = False) -> FolderSize:
    """Of a teacher or base."""
    info = check_language_folder(folder, allow_pickle)
    looked_up = 0 if info.is_tied else info.vocab_size * info.hidden
    return FolderSize(info.num_params, info.num_params - looked_up, info.num_layers)


def spec_size(
    plan: Plan, spec: ModelSpec, size_of_folder: Callable[[str], FolderSize]
) -> tuple[int, float]:
    """Of a job's model: parameters that multiply, and operations of training for each of them and
    each token."""
    if isinstance(spec, LanguageStudentSpec):
        model = student_size(plan, spec.student)
        return model.num_active, model.per_parameter
    assert isinstance(spec, LanguageExpertSpec)
    base = size_of_folder(spec.base)
    is_low_rank = spec.lora is not None
    return base.num_active, 4.0 if is_low_rank else base.per_parameter(spec.train_layers)
