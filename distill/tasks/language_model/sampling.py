"""Checks of ``sampling``, and its lines of the plan."""

from __future__ import annotations

from distill.aggregation import Attention, OracleDomain
from distill.config import Experiment
from distill.errors import ConfigError
from distill.models.plain_head import described
from distill.records import Line
from distill.sampling import Speculative, StudentText, TeacherText, Written
from distill.sampling.key_values import check_reads_on
from distill.tasks.language_model.check import Languages


def check_sampling(experiment: Experiment) -> None:
    """Checks that need no data and no model folder."""
    sampling = experiment.sampling
    if not isinstance(sampling, Written):
        return
    key = f"sampling.type {sampling.type}"
    if not experiment.is_language_model:
        raise ConfigError(
            f"{key} generates text, task is classification: set task to language_model, or "
            "sampling.type to dataset"
        )
    if not experiment.has_teachers:
        raise ConfigError(f"{key} needs a teacher: give teachers or experts")
    columns, kd = experiment.data.columns, experiment.kd
    if columns.prompt is None and columns.messages is None:
        raise ConfigError(
            f"{key} continues prompts, and data.columns.text ({columns.text!r}) has none: "
            "give data.columns.prompt and completion, or messages"
        )
    if experiment.data.packing:
        raise ConfigError(f"{key} generates rows of different lengths: set data.packing: false")
    if experiment.objective.crosses_tokenizers:
        raise ConfigError(
            f"{key} sends the student's tokens to the teachers, objective.type "
            f"{experiment.objective.type} is for different tokenizers: use forward_kl, or "
            "sampling.type dataset"
        )
    if not isinstance(sampling, TeacherText) and kd.alpha < 1:
        raise ConfigError(
            f"kd.alpha {kd.alpha:g} with {key} would train the student on its own tokens as "
            "labels: "
            "set kd.alpha: 1"
        )
    reading = [k for k, m in experiment.objective.members.items() if m.needs_labels]
    if reading and not isinstance(sampling, TeacherText):
        raise ConfigError(
            f"{reading[0]}.type {experiment.objective.members[reading[0]].type} with {key} would "
            "take the student's own tokens as labels: use forward_kl or reverse_kl, or "
            "sampling.type dataset"
        )
    if isinstance(experiment.aggregation, Attention):
        raise ConfigError(
            f"aggregation.type attention is trained on the text of the data set, and {key} "
            "generates other text, whose likelihood does not measure the quality of a teacher: "
            "use aggregation.type mean, weights, uncertainty, single or oracle, or sampling.type "
            "dataset"
        )
    room = experiment.data.max_length - 1
    if sampling.max_new_tokens is not None and sampling.max_new_tokens > room:
        raise ConfigError(
            f"sampling.max_new_tokens {sampling.max_new_tokens} is more than data.max_length "
            f"{experiment.data.max_length} leaves after a prompt: lower it, or raise max_length"
        )


def check_speakers(experiment: Experiment, languages: Languages, names: tuple[str, ...]) -> None:
    """Raise unless the models that generate or verify text can do so."""
    sampling = experiment.sampling
    if not isinstance(sampling, Written):
        return
    if isinstance(sampling, Speculative | TeacherText):
        _check_speaking_teacher(experiment, sampling, names)
    if not isinstance(sampling, TeacherText):
        student = experiment.student
        start = student.init_from.path if student.init_from else student.path
        if start is not None:
            check_reads_on("student", described(start), experiment.data.max_length)
    if isinstance(sampling, Speculative):
        _check_ranks(sampling, languages)


def _check_speaking_teacher(
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
    speaking = [t for t in experiment.teachers if sampling.teacher in (None, t.name)]
    servings = {f"teachers.{t.name}": (t.path, t.moe) for t in speaking}
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


def sampling_lines(experiment: Experiment) -> list[Line]:
    """Lines of the plan: rows, lengths and teacher forwards of a step of generated text."""
    sampling = experiment.sampling
    if not isinstance(sampling, Written):
        return []
    rows = experiment.trainer.batch_size
    longest = sampling.max_new_tokens or experiment.data.max_length - 1
    told = (
        f"{rows} rows per step, up to {longest} tokens each; the teachers' outputs are not cached"
    )
    lines = [Line("sampling", sampling.type, told)]
    is_each_its_own = isinstance(experiment.aggregation, OracleDomain)
    if isinstance(sampling, Speculative | TeacherText) and not sampling.teacher and is_each_its_own:
        does = "verifies the drafts" if isinstance(sampling, Speculative) else "generates"
        lines.append(Line("teacher of the text", "by domain", f"each row's own teacher {does}"))
    if isinstance(sampling, StudentText) and sampling.staleness > 0:
        meaning = "the teachers compute while the student trains on the steps in between"
        steps = "step" if sampling.staleness == 1 else "steps"
        lines.append(Line("staleness", f"generated {sampling.staleness} {steps} ahead", meaning))
    if isinstance(sampling, Speculative):
        fewest = -(-longest // sampling.drafts)
        accepted = f"the top {sampling.top_k} (K)"
        if sampling.nucleus is not None:
            accepted = f"the nucleus {sampling.nucleus:g}"
        lines.append(
            Line(
                "drafts",
                f"{sampling.drafts} tokens per draft (γ), accepted in {accepted}",
                f"{fewest} to {longest} teacher forwards per step with rows of this length",
            )
        )
    return lines
