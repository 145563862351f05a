"""What of ``sampling`` is refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distill.config import parse
from distill.driver.checks.check import check
from distill.errors import InputError
from tests.moe.test_fit import teachers
from tests.toys_language import NUM_TOKENS, language_experiment

SKD = {"type": "skd", "teacher": "films"}
BY_PROMPT = {"prompt": "prompt", "completion": "completion", "domain": "domain", "split": "split"}


def experiment_of(root: Path, sampling: dict[str, Any], **changes: Any) -> dict[str, Any]:
    raw = language_experiment(root, sampling=sampling, kd={"temperature": 1.0, "alpha": 1.0})
    raw["data"] |= {"columns": BY_PROMPT, "packing": False}
    return {**raw, **changes}


def lines_of(raw: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {line.part: (line.what, line.size) for line in check(parse(raw)).lines}


def test_the_plan_tells_what_a_step_of_drafts_costs(tmp_path: Path) -> None:
    text = lines_of(experiment_of(tmp_path, SKD | {"max_new_tokens": 12, "top_k": 9}))
    assert text["sampling"][0] == "skd"
    assert "8 rows per step, up to 12 tokens each" in text["sampling"][1]
    assert text["drafts"] == (
        "5 tokens per draft (γ), accepted in the top 9 (K)",
        "3 to 12 teacher forwards per step with rows of this length",
    )


@pytest.mark.parametrize(
    ("sampling", "changes", "message"),
    [
        ({"type": "on_policy"}, {"kd": {"alpha": 0.5}}, "kd.alpha 0.5 .* set kd.alpha: 1"),
        (SKD | {"drafts": 0}, {}, "sampling.drafts must be greater than or equal to 1, got 0"),
        (SKD | {"top_k": 0}, {}, "sampling.top_k must be greater than or equal to 1, got 0"),
        (
            SKD | {"top_k": NUM_TOKENS + 7},
            {},
            f"sampling.top_k {NUM_TOKENS + 7} is more than the {NUM_TOKENS} tokens",
        ),
        (
            SKD | {"teacher": "plays"},
            {},
            "sampling.teacher 'plays' is not a teacher: .*films, meals",
        ),
        (SKD | {"max_new_tokens": 24}, {}, "sampling.max_new_tokens 24 is more than"),
        (SKD, {"teachers": []}, "sampling.type skd needs a teacher"),
        (SKD, {"objective": {"type": "uld"}}, "objective.type uld is for different tokenizers"),
    ],
)
def test_bad_sampling_is_refused(
    tmp_path: Path, sampling: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check(parse(experiment_of(tmp_path, sampling, **changes)))


@pytest.mark.parametrize(
    ("sampling", "moe", "message"),
    [
        (SKD | {"teacher": "t0"}, "ka", "this teacher verifies drafts, which it cannot do with"),
        (SKD | {"teacher": "t0"}, "sar", "this teacher verifies drafts, which it cannot do with"),
        ({"type": "teacher"}, "ka", "this teacher generates, which it cannot do with experts"),
        ({"type": "teacher"}, "sar", "the student generates, and sampling.type is teacher"),
    ],
)
def test_a_mixture_that_would_speak_otherwise_than_it_teaches_is_refused(
    tmp_path: Path, sampling: dict[str, Any], moe: str, message: str
) -> None:
    raw = experiment_of(tmp_path, sampling, teachers=teachers(tmp_path, {"type": moe}))
    raw |= {"aggregation": {"type": "mean", "mix": "divergences"}}
    with pytest.raises(InputError, match=rf"teachers.t0.moe.type {moe}.*{message}"):
        check(parse(raw))


def test_a_mixture_of_all_its_experts_may_judge(tmp_path: Path) -> None:
    given = teachers(tmp_path, {"type": "all"})
    raw = experiment_of(tmp_path, SKD | {"teacher": "t0", "top_k": 5}, teachers=given)
    assert check(parse(raw | {"aggregation": {"type": "mean"}})).teacher_names == ("t0",)


def test_packed_rows_and_text_without_prompts_are_refused(tmp_path: Path) -> None:
    raw = experiment_of(tmp_path, SKD)
    packed = {**raw, "data": raw["data"] | {"packing": True}}
    with pytest.raises(InputError, match=r"set data\.packing: false"):
        check(parse(packed))
    bare = {**raw, "data": raw["data"] | {"columns": {"domain": "domain", "split": "split"}}}
    with pytest.raises(InputError, match=r"continues prompts, and data.columns.text .'text'."):
        check(parse(bare))


def test_attention_is_refused_for_text_that_the_data_set_does_not_hold(tmp_path: Path) -> None:
    raw = experiment_of(tmp_path, SKD | {"teacher": "t0"}) | {"aggregation": {"type": "attention"}}
    with pytest.raises(
        InputError, match=r"attention is trained on the text of .* sampling.type sk"
    ):
        check(parse(raw))


def test_a_sweep_over_sampled_text_is_refused(tmp_path: Path) -> None:
    space = {"space": {"kd.temperature": {"type": "grid", "values": [1.0, 2.0]}}}
    raw = experiment_of(tmp_path, SKD, search=space)
    with pytest.raises(InputError, match="generates new text at every step"):
        check(parse(raw), command="sweep")


def test_a_model_whose_window_is_too_narrow_is_refused(tmp_path: Path) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    from tests.toys_language import write_llama, write_tokenizer

    write_llama(tmp_path / "meals", seed=2)
    config = MistralConfig(
        vocab_size=NUM_TOKENS,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=48,
        sliding_window=8,
        max_position_embeddings=64,
    )
    MistralForCausalLM(config).save_pretrained(tmp_path / "films")
    write_tokenizer(tmp_path / "films")
    with pytest.raises(InputError, match=r"teachers\.films: a mistral model attends to the last 8"):
        check(parse(experiment_of(tmp_path, SKD)))


@pytest.mark.parametrize("sampling", [{"type": "on_policy"}, {"type": "teacher"}, SKD])
def test_a_teacher_of_other_tokens_is_refused(tmp_path: Path, sampling: dict[str, Any]) -> None:
    from tests.toys_language import write_tokenizer

    raw = experiment_of(tmp_path, sampling)
    write_tokenizer(tmp_path / "meals", extra=("xyz",))
    with pytest.raises(InputError, match=r"'xyz' to the teacher: sampling.type .*: use a"):
        check(parse(raw))


@pytest.mark.parametrize("sampling", [{"type": "on_policy"}, {"type": "mixed"}, SKD])
def test_a_student_without_a_cache_to_read_on_from_is_refused(
    tmp_path: Path, sampling: dict[str, Any]
) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    from tests.toys_language import write_tokenizer

    config = MambaConfig(
        vocab_size=NUM_TOKENS, hidden_size=16, num_hidden_layers=1, state_size=4, expand=2
    )
    MambaForCausalLM(config).save_pretrained(tmp_path / "mamba")
    write_tokenizer(tmp_path / "mamba")
    raw = experiment_of(tmp_path, sampling, student={"path": str(tmp_path / "mamba")})
    with pytest.raises(InputError, match=r"student: a mamba model .* has no key-value cache"):
        check(parse(raw))
