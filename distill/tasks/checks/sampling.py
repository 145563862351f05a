"""Checks of ``sampling`` that need no data and no model folder, and its lines of the plan."""

from __future__ import annotations

from distill.aggregation import Attention, OracleDomain
from distill.config import Experiment
from distill.errors import ConfigError
from distill.records import Line
from distill.sampling import Generated, Speculative, StudentText, TeacherText


def check_sampling(experiment: Experiment) -> None:
    """Raise ConfigError for generated text that the rest of the experiment does not allow."""
    sampling = experiment.sampling
    if not isinstance(sampling, Generated):
        return
    key = f"sampling.type {sampling.type}"
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


def sampling_lines(experiment: Experiment) -> list[Line]:
    """Lines of the plan: rows, lengths and teacher forwards of a step of generated text."""
    sampling = experiment.sampling
    if not isinstance(sampling, Generated):
        return []
    rows = experiment.trainer.batch_size
    longest = sampling.max_new_tokens or experiment.data.max_length - 1
    text = (
        f"{rows} rows per step, up to {longest} tokens each; the teachers' outputs are not cached"
    )
    lines = [Line("sampling", sampling.type, text)]
    is_one_per_domain = isinstance(experiment.aggregation, OracleDomain)
    if (
        isinstance(sampling, Speculative | TeacherText)
        and not sampling.teacher
        and is_one_per_domain
    ):
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
