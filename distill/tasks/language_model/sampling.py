"""Whether the models that generate or verify text can do so."""

from __future__ import annotations

from distill.aggregation import OracleDomain
from distill.config import Experiment
from distill.errors import ConfigError
from distill.models.plain_head import described
from distill.sampling import Generated, Speculative, TeacherText
from distill.sampling.key_values import check_reads_on
from distill.tasks.language_model.folders import Languages


def check_generators(experiment: Experiment, languages: Languages, names: tuple[str, ...]) -> None:
    """Raise unless the models that generate or verify text can do so."""
    sampling = experiment.sampling
    if not isinstance(sampling, Generated):
        return
    if isinstance(sampling, Speculative | TeacherText):
        _check_generating_teacher(experiment, sampling, names)
    if not isinstance(sampling, TeacherText):
        student = experiment.student
        start = student.init_from.path if student.init_from else student.path
        if start is not None:
            check_reads_on("student", described(start), experiment.data.max_length)
    if isinstance(sampling, Speculative):
        _check_ranks(sampling, languages)


def _check_generating_teacher(
    experiment: Experiment, sampling: Speculative | TeacherText, names: tuple[str, ...]
) -> None:
    aggregation = experiment.aggregation
    if sampling.teacher is None and len(names) > 1 and not isinstance(aggregation, OracleDomain):
        what = "verify the drafts" if isinstance(sampling, Speculative) else "generate"
        raise ConfigError(
            f"sampling.teacher is missing: name one of {', '.join(names)} to {what}, or set "
            f"aggregation.type ({aggregation.type}) to oracle, which uses the teacher of each "
            "row's domain"
        )
    if sampling.teacher is not None and sampling.teacher not in names:
        raise ConfigError(
            f"sampling.teacher {sampling.teacher!r} is not a teacher: name one of "
            f"{', '.join(names)}"
        )
    activated = [t for t in experiment.teachers if sampling.teacher in (None, t.name)]
    servings = {f"teachers.{t.name}": (t.path, t.moe) for t in activated}
    if (experts := experiment.experts) is not None:
        servings["experts.serving"] = (experts.base, experts.serving.moe)
    does = "verifies drafts" if isinstance(sampling, Speculative) else "generates"
    for key, (folder, moe) in servings.items():
        if moe.changes:
            raise ConfigError(
                f"{key}.moe.type {moe.type}: with sampling.type {sampling.type} this teacher "
                f"{does}, which it cannot "
                "do with experts or gates that change from step to step: set moe.type: all or own, "
                "or sampling.type on_policy"
            )
        where = "experts.base" if key == "experts.serving" else key
        check_reads_on(where, described(folder), experiment.data.max_length)


def _check_ranks(sampling: Speculative, languages: Languages) -> None:
    sizes = [info.vocab_size for info in (*languages.teachers.values(), languages.base) if info]
    for name in ("top_k", "top_k_end"):
        value = getattr(sampling, name)
        if value is not None and value > min(sizes):
            raise ConfigError(
                f"sampling.{name} {value} is more than the {min(sizes)} tokens of the vocabulary: "
                "lower it, or use sampling.type on_policy, which keeps every draft"
            )
