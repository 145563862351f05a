"""Students that are language models: whether they can be built, and their lines of the plan."""

from __future__ import annotations

from functools import partial

from distill.config import Experiment, InitFrom, Student, TfidfBaseline
from distill.errors import ConfigError
from distill.models.decoder import layers_of
from distill.models.language import check_language_folder
from distill.models.language_sizes import solve_language
from distill.models.language_student import check_language_start, kept_layers
from distill.models.packed import check_takes_positions
from distill.models.plain_head import described
from distill.models.shape import as_begun
from distill.models.tokenizer import load_tokenizer, num_ids
from distill.models.vocabulary import same_tokenizer
from distill.records import Line
from distill.run_folder import RunFolder
from distill.tasks.language_model.folders import check_lora
from distill.wording import counted


def students_of(experiment: Experiment) -> dict[str, Student]:
    """By key, those of baselines too."""
    return {"student": experiment.student} | {
        f"baselines.{b.name}.student": b.student
        for b in experiment.baselines
        if not isinstance(b, TfidfBaseline) and b.student is not None
    }


def student_lines(experiment: Experiment, tokenizer: str) -> list[Line]:
    """Part, shape and size of every student; refuses one that cannot be built."""
    lines = []
    for key, student in students_of(experiment).items():
        own = check_language_student(key, student, tokenizer, experiment)
        name = key.replace("baselines.", "baseline ").removesuffix(".student")
        if key == "student":
            solved = partial(solve_language, student, num_ids(load_tokenizer(own)))
            student = as_begun(student, RunFolder(experiment.output).fit, solved)
        lines.append(Line(name, *_line(student, own)))
    return lines


def check_language_student(
    key: str, student: Student, tokenizer: str, experiment: Experiment
) -> str:
    """Raise for a student that cannot be built, or reads other tokens than those of the folder
    ``tokenizer``; returns the folder of its own tokenizer."""
    own = student.tokenizer or (student.init_from or student).path or tokenizer
    check_language_start(student, own, experiment.data.max_length)
    start = (student.init_from or student).path
    if start is not None and experiment.data.packing:
        check_takes_positions(key, described(start))
    if start is not None and student.lora is not None:
        check_lora(key, start, student.lora)
    if not is_same_reading(tokenizer, own):
        raise ConfigError(
            f"{key} has different tokens ({own}) from the student ({tokenizer}), and "
            "perplexities under different tokenizers cannot be compared: use the student's "
            "tokenizer for it"
        )
    return own


def is_same_reading(one: str, other: str) -> bool:
    """Whether both make the same blocks: the same tokens, and the same end of a text."""
    first, second = load_tokenizer(one), load_tokenizer(other)
    return same_tokenizer(one, other) and first.eos_token_id == second.eos_token_id


def _line(student: Student, tokenizer: str) -> tuple[str, str]:
    if student.path or student.init_from:
        start = student.init_from
        folder = (start.path if start else student.path) or ""
        info = check_language_folder(folder)
        kept = f", {start.layers} of {info.num_layers} layers ({start.keep})" if start else ""
        lora = f", lora of rank {student.lora.rank}" if student.lora else ""
        num_params = info.num_params - (_left_out(start) if start else 0)
        return f"from {folder}{kept}{lora}", _size(num_params, is_whole=student.lora is None)
    size = solve_language(student, num_ids(load_tokenizer(tokenizer)))
    shape = (
        f"{counted(size.layers, 'layer')}, hidden {size.hidden}, "
        f"{counted(size.heads, 'head')}, ffn {size.ffn}"
    )
    return shape, _size(size.num_params) + size.unused


def _left_out(start: InitFrom) -> int:
    """Parameters of the layers that do not stay."""
    _, layers = layers_of(described(start.path))
    kept = kept_layers(start.layers, len(layers), start.keep)
    gone = [layer for i, layer in enumerate(layers) if i not in kept]
    return sum(p.numel() for layer in gone for p in layer.parameters())


def _size(num_params: int, is_whole: bool = True) -> str:
    text = f"{num_params / 1e6:.2f} M parameters, {num_params * 4 / 1e6:.1f} MB"
    if not is_whole:
        return text
    training_mb = num_params * 16 / 1e6  # weights, gradients, AdamW's two moments
    return f"{text} ({training_mb:.0f} MB to train)"
