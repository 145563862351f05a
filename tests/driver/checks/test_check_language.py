"""What can be known of language models before a process starts is refused before one does."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    PreTrainedModel,
)

from distill.config import parse
from distill.driver.checks.check import check
from distill.errors import ConfigError, DataError, InputError, ModelError
from distill.models.language import load_language_model
from distill.models.language_student import keep_layers, kept_layers
from distill.models.tokenizer import tokenizer_fingerprint
from tests.toys import toy_experiment, write_encoder
from tests.toys_language import (
    NUM_TOKENS,
    language_experiment,
    llama,
    write_llama,
    write_tokenizer,
)
from tests.toys_moe import mixture

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 16,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("check")
    language_experiment(folder)
    write_llama(folder / "short", max_position_embeddings=16)
    write_other(folder / "other", llama(0, NUM_TOKENS + 1))
    write_other(folder / "short-other", llama(0, NUM_TOKENS + 1, max_position_embeddings=4))
    save(folder / "capped", Gemma2ForCausalLM(Gemma2Config(vocab_size=NUM_TOKENS, **SMALL)))
    bloom = BloomConfig(vocab_size=NUM_TOKENS, hidden_size=16, n_layer=1, n_head=2)
    save(folder / "bloom", BloomForCausalLM(bloom))
    save(folder / "mixture", mixture())
    cut = write_llama(folder / "cut") / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-100])
    (folder / "gguf").mkdir()
    (folder / "gguf" / "model.gguf").write_bytes(b"GGUF")
    write_encoder(folder / "encoder", num_labels=2)
    chat = [{"role": "user", "content": "the"}, {"role": "assistant", "content": "plot"}]
    rows = [{"messages": chat, "split": s} for s in ("train", "validation", "test")]
    pq.write_table(pa.Table.from_pylist(rows), folder / "chats.parquet")
    splits = ["train", "train", "validation", "test"]
    answers = [{"prompt": "the", "completion": "plot" * (i != 0)} for i in range(4)]
    rows = [a | {"split": s} for a, s in zip(answers, splits, strict=True)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "unanswered.parquet")
    return folder


def save(folder: Path, model: PreTrainedModel) -> None:
    model.save_pretrained(folder)
    write_tokenizer(folder)


def write_other(folder: Path, model: PreTrainedModel) -> None:
    """Of a tokenizer with one word more."""
    model.save_pretrained(folder)
    write_tokenizer(folder, extra=("xyz",))


def changed(raw: dict[str, Any], root: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """``@name`` in a value is a path below ``root``."""
    raw = copy.deepcopy(raw)
    for key, value in changes.items():
        node: Any = raw
        *parents, last = key.split(".")
        for parent in parents:
            node = node[int(parent)] if isinstance(node, list) else node.setdefault(parent, {})
        node[last] = placed(value, root)
    return raw


def placed(value: Any, root: Path) -> Any:
    if isinstance(value, dict):
        return {key: placed(v, root) for key, v in value.items()}
    if isinstance(value, list):
        return [placed(v, root) for v in value]
    is_path = isinstance(value, str) and value.startswith("@")
    return str(root / value[1:]) if is_path else value


CHATS = {"data.path": "@chats.parquet", "data.columns": {"messages": "messages", "split": "split"}}
PROMPTS = {"prompt": "prompt", "completion": "completion", "split": "split"}
MEAN = {"aggregation": {"type": "mean"}}
WIRE = "teachers.0.wire"
ALONE = {"type": "labels_only", "name": "alone"}
EXPERTS = {"teachers": [], "experts": {"base": "@films", "serving": {"num_cpus": 0.1}}}
MIXTURE = {"teachers.0.path": "@mixture"}
ALL = {"type": "all"}
DIVERGENCES = {"type": "mean", "mix": "divergences"}
BAD: list[tuple[dict[str, Any], type[InputError], str]] = [
    # wires and objectives
    (
        {WIRE: {"type": "topk"}, "objective": {"type": "reverse_kl"}},
        ConfigError,
        r"teachers.films.wire: topk cannot serve objective.type 'reverse_kl': .*tail.*hidden or",
    ),
    (
        {WIRE: {"type": "sampled"}, "objective": {"type": "jsd"}},
        ConfigError,
        r"teachers.films.wire: sampled cannot serve objective.type 'jsd': only what is linear",
    ),
    (
        {WIRE: {"type": "topk"}, "kd.temperature": 3.0},
        ConfigError,
        r"wire.temperatures \[1.0, 2.0, 4.0\] does not contain the temperature 3 .*add it",
    ),
    (
        {WIRE: {"type": "sampled"}, "kd.temperature": 3.0},
        ConfigError,
        "teachers.films.wire.temperature is 1, .* trained at 3: make them equal",
    ),
    (
        {"teachers.0.path": "@capped", WIRE: {"type": "hidden"}},
        ConfigError,
        "teachers.films.wire.type hidden: a gemma2 model caps or scales its logits.*use dense",
    ),
    # mixtures of experts
    ({"teachers.0.moe": ALL}, ConfigError, "teachers.films.moe.type all .* layers have none: rem"),
    (
        {**MIXTURE, "teachers.0.moe": {"type": "ka", "experts": 5}, "aggregation": DIVERGENCES},
        ConfigError,
        "teachers.films.moe.experts must lie between 1 and the 4 experts of a layer, got 5",
    ),
    (
        {**MIXTURE, "teachers.0.moe": {"type": "ka"}},
        ConfigError,
        "aggregation.mix 'logits' averages outputs .* teachers.films.moe.type ka .*mix: diverg",
    ),
    (
        {**MIXTURE, "teachers.0.moe": {"type": "sar"}},
        ConfigError,
        "teachers.films.moe.type sar .* sampling.type is dataset: set sampling.type: on_policy, or",
    ),
    (
        {**EXPERTS, "experts.serving.moe": ALL},
        ConfigError,
        "experts.serving.moe.type all .* layers have none",
    ),
    (
        {"aggregation": {"type": "uncertainty", "mix": "divergences"}},
        ConfigError,
        "'uncertainty' compares the logits .* divergences",
    ),
    # positions
    ({"data.max_length": 65}, ConfigError, "max_length 65 is longer than the 64 .*teachers.films"),
    ({"teachers.1.path": "@short"}, ConfigError, "longer than the 16 positions of teachers.meals"),
    (
        {"teachers.1.path": "@short-other", "objective": {"type": "uld"}},
        ConfigError,
        r"teachers.meals has 4 positions, .* makes \d+ tokens of a text of data.max_length 24",
    ),
    (
        {"data.max_length": 40, "student": {"path": "@short"}},
        ModelError,
        "data.max_length 40 is more than the 16 positions of student.path",
    ),
    (
        {"teachers.0.path": "@bloom", "data.max_length": 24},
        ConfigError,
        "teachers.films: a bloom model reads no positions.*set data.packing: false",
    ),
    # tokenizers and folders
    (
        {"teachers.1.path": "@other"},
        ModelError,
        rf"id {NUM_TOKENS} is no token to the student and 'xyz' to the teacher: use a teacher with "
        "the student's tokenizer or, for data.columns.text, objective.type: uld",
    ),
    (
        {"teachers.1.tokenizer_sha256": "abc"},
        ModelError,
        "teachers.meals: the tokenizer .* tokenizer_sha256 is abc: give the folder",
    ),
    (
        {
            "baselines": [
                {"type": "labels_only", "name": "alone", "student": {"tokenizer": "@other"}}
            ]
        },
        ConfigError,
        "baselines.alone.student has different tokens .*use the student's",
    ),
    ({"teachers.0.path": "@cut"}, ModelError, "is truncated or not a safetensors file.*copy it"),
    ({"teachers.0.path": "@gguf"}, ModelError, "is a GGUF file.*python -m distill.models.gguf"),
    ({"teachers.0.path": "@encoder"}, ModelError, "is a bert model, not a causal language model"),
    # data
    (CHATS, ModelError, "chat template"),
    ({**CHATS, "data.cut": "middle"}, ConfigError, "data.cut is middle, .*: use head or tail"),
    (
        {"data.columns": PROMPTS, "data.cut": "middle"},
        ConfigError,
        "data.cut is middle, .* data.columns.prompt: use head or tail",
    ),
    (
        {"data.path": "@unanswered.parquet", "data.columns": PROMPTS},
        DataError,
        r"1 of 4 rows have no target tokens .*above data.max_unlearnable 0.01",
    ),
    # what is of classifiers
    (
        {"data.labels": ["no", "yes"]},
        ConfigError,
        r'data.labels \["no", "yes"\] applies only to cl',
    ),
    (
        {"data.image": {"height": 1, "width": 1}},
        ConfigError,
        "data.image .* applies only to classif",
    ),
    ({"student.vocab_size": 64}, ConfigError, "student.vocab_size 64 applies only to c"),
    (
        {"aggregation": {"type": "attention"}, "teachers.0.wire": {"type": "sampled"}},
        ConfigError,
        "'attention' needs .* the wire sampled .* use the wire hidden or dense for every",
    ),
    (
        {"aggregation": {"type": "attention", "mix": "divergences"}},
        ConfigError,
        "'attention' is trained on the likelihood under all .* set aggregation.mix: probabilities",
    ),
    ({"aggregation": {"type": "routed", "router": "x"}}, ConfigError, "routed applies only to cl"),
    # whom a learned router, or the domain, cannot choose
    (
        {"aggregation": {"type": "learned"}, "teachers.0.wire": {"type": "topk"}},
        ConfigError,
        "'learned' needs .* the wire topk .* use the wire hidden or dense for every",
    ),
    (
        {"aggregation": {"type": "learned"}, "objective": {"type": "uld"}},
        ConfigError,
        "'learned' needs .*'uld' .* use mean, weights, oracle or single",
    ),
    (
        {"aggregation": {"type": "weights", "weights": [1, 2, 3]}},
        ConfigError,
        "aggregation.weights has 3 values for 2 teachers",
    ),
    (
        {"aggregation": {"type": "oracle"}, "teachers.1.name": "soups"},
        ConfigError,
        "no teacher is named 'meals', the domain of row \\d+ of the train .* are films, soups",
    ),
    (
        {"baselines": [{"type": "tfidf"}]},
        ConfigError,
        "tfidf applies only to classifiers",
    ),
    (
        {"trainer.select_by": "eval.f1"},
        ConfigError,
        "select_by eval.f1 applies only to classifiers",
    ),
    # experts and low-rank updates
    ({**EXPERTS, "experts.partition": {"type": "kmeans"}}, ConfigError, "kmeans applies only to"),
    ({**EXPERTS, "experts.train_layers": 3}, ConfigError, "experts.train_layers is 3, .* 2 layers"),
    ({**EXPERTS, "experts.batch_size": 99}, ConfigError, r"batch_size 99 .* training blocks of"),
    (
        {**EXPERTS, "experts.lora": {}, "experts.train_layers": 1},
        ConfigError,
        "experts.train_layers 1 .*remove one of the two",
    ),
    (
        {**EXPERTS, "experts.lora": {"targets": ["query"]}},
        ConfigError,
        "experts: lora.targets 'query' is not a linear layer .* use some of down_proj",
    ),
    (
        {"student": {"path": "@films", "lora": {"targets": ["query"]}}},
        ConfigError,
        "student: lora.targets 'query' is not a linear layer",
    ),
    ({"student.lora": {}}, ConfigError, "student.lora trains updates .*give student.path or"),
]


@pytest.mark.parametrize(("changes", "error", "message"), BAD)
def test_is_refused(
    root: Path, tmp_path: Path, changes: dict[str, Any], error: type[InputError], message: str
) -> None:
    raw = language_experiment(root, output=str(tmp_path / "run"))
    raw |= {} if "aggregation" in changes else MEAN
    with pytest.raises(error, match=message) as caught:
        check(parse(changed(raw, root, changes)))
    assert "\n" not in str(caught.value)


CLASSIFIERS: list[tuple[dict[str, Any], str]] = [
    (
        {"data.columns.prompt": "text", "data.columns.completion": "label"},
        "data.columns.prompt text applies only to language models, task is classification: set",
    ),
    ({"data.columns.messages": "text"}, "data.columns.messages text applies only to language m"),
    ({"trainer.select_by": "eval.perplexity"}, "select_by eval.perplexity .* use eval.accuracy"),
    (
        {"trainer.gradient_checkpointing": True},
        "gradient_checkpointing true applies only to lan",
    ),
    ({"student.lora": {}}, "student.lora applies only to language models"),
    ({"experts.lora": {}}, "experts.lora applies only to language models"),
    ({"objective": {"type": "uld"}}, "objective.type uld applies only to lan.* use forward_kl"),
    ({"experts.serving.moe": ALL}, "experts.serving.moe.type all applies only to langu"),
    ({"aggregation": DIVERGENCES}, "aggregation.mix divergences applies only to langu"),
    ({"aggregation": {"type": "learned"}}, "learned applies only to lan.* use mean, .* attention"),
    *(
        ({f"experts.{key}.wire": {"type": wire}}, f"experts.{key}.wire.type {wire} .* use dense")
        for key, wire in (("serving", "topk"), ("serving", "hidden"), ("router.serving", "sampled"))
    ),
]


@pytest.mark.parametrize(("changes", "message"), CLASSIFIERS)
def test_what_is_of_language_models_is_refused_of_classifiers(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check(parse(changed(toy_experiment(tmp_path), tmp_path, changes)))


def test_a_plan_tells_the_fingerprint_that_a_teacher_can_declare(
    root: Path, tmp_path: Path
) -> None:
    raw = language_experiment(root, output=str(tmp_path / "run"))
    found = {line.part: line.what for line in check(parse(raw)).lines}
    assert found["tokenizer"] == tokenizer_fingerprint(root / "films")
    declared = {f"teachers.{i}.tokenizer_sha256": found["tokenizer"] for i in range(2)}
    check(parse(changed(raw, root, declared)))


def test_a_plan_tells_how_the_experts_of_a_mixture_are_asked(root: Path, tmp_path: Path) -> None:
    raw = language_experiment(root, output=str(tmp_path / "run"), aggregation=DIVERGENCES)
    raw = changed(raw, root, {**MIXTURE, "teachers.0.moe": {"type": "ka"}})
    text = [line for line in check(parse(raw)).lines if line.part.startswith("experts of")]
    assert [(line.part, line.size) for line in text] == [("experts of films", "ka")]
    expected = (
        "2 forwards with 3 of 4 experts per token, drawn at random for 5% of the tokens "
        "(its router selects 2)"
    )
    assert text[0].what == expected
    space = {"optimizer.lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2}}
    swept = parse(raw | {"search": {"space": space}})
    with pytest.raises(ConfigError, match=r"moe.type ka gives different outputs .* or run distill"):
        check(swept, command="sweep")


def test_teachers_that_cap_or_read_no_positions_can_teach(root: Path, tmp_path: Path) -> None:
    """In another wire, and unpacked."""
    raw = language_experiment(root, output=str(tmp_path / "run"), **MEAN)
    changes = {"teachers.0.path": "@capped", "teachers.1.path": "@bloom", "data.packing": False}
    plan = check(parse(changed(raw, root, changes)))
    assert plan.teacher_names == ("films", "meals")


@pytest.mark.parametrize("keep", ["first", "even"])
def test_a_plan_tells_the_size_of_a_student_of_some_layers(
    root: Path, tmp_path: Path, keep: Literal["first", "even"]
) -> None:
    start = {"path": "@films", "layers": 1, "keep": keep}
    raw = changed(language_experiment(tmp_path), root, {"student": {"init_from": start}})
    (text,) = (line.size for line in check(parse(raw)).lines if line.part == "student")
    whole = load_language_model(str(root / "films"))
    kept = keep_layers(whole, kept_layers(1, 2, keep))
    num_params = sum(p.numel() for p in kept.parameters())
    assert num_params < sum(p.numel() for p in whole.parameters())
    assert text.startswith(f"{num_params / 1e6:.2f} M parameters, {num_params * 4 / 1e6:.1f} MB")
