"""Teachers whose outputs are ordered or called otherwise: found by the check, undone in targets."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from transformers import AutoTokenizer, GPT2Config, GPT2ForSequenceClassification

from distill.aggregation import Routed
from distill.config import Cache, Stream, parse
from distill.driver.checks.check import check
from distill.driver.context import Driver
from distill.driver.serve import teacher_specs
from distill.errors import ConfigError, InputError, ModelError, UnknownLabelError
from distill.tasks.classification.fingerprint import task_of
from distill.tasks.classification.specs import DataSpec
from distill.tasks.plan import Plan
from distill.teachers.backends import open_backends
from distill.teachers.client import CacheOnlyClient
from distill.teachers.local import LocalTeachers
from distill.teachers.setup import TeacherSetup
from tests.toys import DOMAINS, toy_experiment, write_encoder, write_named, write_turned
from tests.toys_teachers import answers_of_rows

VALUES: dict[str, dict[str, Any]] = {
    "integers": {"no": 0, "yes": 1},
    "stars": {"no": 1, "yes": 2},
    "generic": {"no": "LABEL_0", "yes": "LABEL_1"},
    "floats": {"no": 0.0, "yes": 1.0},
}
"""Data sets that differ from the toy one in how its labels no and yes are written."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy data with its labels written in several ways, and the same teacher so."""
    root = tmp_path_factory.mktemp("labels")
    toy_experiment(root)
    table = pq.read_table(root / "data.parquet")
    labels = table.column("label").to_pylist()
    for name, values in VALUES.items():
        column = pa.array([values[label] for label in labels])
        written = table.set_column(table.schema.get_field_index("label"), "label", column)
        pq.write_table(written, root / f"{name}.parquet")
    write_encoder(root / "a", num_labels=2, seed=1)
    write_encoder(root / "b", num_labels=2, seed=2)
    write_encoder(root / "three", num_labels=3)
    write_turned(root / "b", root / "b-turned", ["yes", "no"])
    write_named(root / "b", root / "b-words", ["negative", "positive"])
    write_named(root / "b", root / "b-numbers", [0, 1])
    write_named(root / "b", root / "b-plain", None)
    words = make_pipeline(CountVectorizer(), LogisticRegression())
    words.fit(table.column("text").to_pylist(), [int(label == "yes") for label in labels])
    (root / "words.pkl").write_bytes(pickle.dumps(words))
    return root


def plan_of(
    root: Path, *teachers: str | dict[str, Any], data: str = "data", **changes: Any
) -> Plan:
    raw = toy_experiment(root, aggregation={"type": "mean"})
    del raw["experts"]
    raw["data"] |= {"path": str(root / f"{data}.parquet")} | changes.pop("data_keys", {})
    raw["student"]["tokenizer"] = str(root / "encoder")
    raw["teachers"] = [
        {"name": f"t{i}", "num_cpus": 0.1, "allow_pickle": True}
        | ({"path": teacher} if isinstance(teacher, str) else teacher)
        for i, teacher in enumerate(teachers)
    ]
    for teacher in raw["teachers"]:
        teacher["path"] = str(root / teacher["path"])
    return check(parse(raw | changes))


def guidance_of(plan: Plan, cache: Path, is_silent: bool = False) -> TeacherSetup:
    """As a run has it, with the teachers in this process."""
    driver: Any = Driver(plan, *[None] * 4)  # type: ignore[arg-type]
    teachers, router = teacher_specs(driver, [])
    served = [*teachers, *([router] if router else [])]
    client = CacheOnlyClient(()) if is_silent else LocalTeachers(open_backends(served))
    aggregation = plan.experiment.aggregation
    return TeacherSetup(client, tuple(teachers), router, aggregation, Stream(), Cache(), str(cache))


def answers_of(plan: Plan, cache: Path, is_silent: bool = False) -> Any:
    teacher_setup = guidance_of(plan, cache, is_silent)
    data = DataSpec(str(plan.corpus.folder), plan.tokenizer, 16)
    with teacher_setup.open(data, "test") as stream:
        return answers_of_rows(stream, plan.corpus.rows("test"))


def test_teachers_in_any_order_have_the_targets_of_those_in_one(root: Path, tmp_path: Path) -> None:
    plain, turned = plan_of(root, "a", "b"), plan_of(root, "a", "b-turned")
    assert turned.columns == {"t1": (1, 0)} and plain.columns == {}
    assert turned.corpus.folder == plain.corpus.folder
    expected = answers_of(plain, tmp_path / "plain").logits_KBV
    found = answers_of(turned, tmp_path / "turned").logits_KBV
    assert torch.equal(found, expected) and not torch.equal(found[1], found[1].flip(-1))
    # The first teacher names the order.
    swapped = plan_of(root, "b-turned", "a")
    assert swapped.corpus.label_names == ("yes", "no") and swapped.columns == {"t1": (1, 0)}
    assert torch.equal(answers_of(swapped, tmp_path / "swapped").logits_KBV.flip(0, -1), expected)


def test_the_cache_keeps_what_a_teacher_says_whatever_it_means(root: Path, tmp_path: Path) -> None:
    def plan(*labels: str) -> Plan:
        own = {f"LABEL_{i}": label for i, label in enumerate(labels)}
        given = {"labels": ["no", "yes"]}
        return plan_of(root, {"path": "b-plain", "labels": own or None}, data_keys=given)

    asked = answers_of(plan(), tmp_path).logits_KBV
    cache_only = [
        answers_of(plan(*labels), tmp_path, True) for labels in (("no", "yes"), ("yes", "no"))
    ]
    assert torch.equal(cache_only[0].logits_KBV, asked)
    assert torch.equal(cache_only[1].logits_KBV, asked.flip(-1))
    # Their runs are still of different tasks, as a memory of runs sees it.
    tasks = {task_of(p.corpus, guidance_of(p, tmp_path, True)) for p in (plan(), plan("yes", "no"))}
    assert len(tasks) == 2


@pytest.mark.parametrize(
    ("teachers", "data", "keys", "classes"),
    [
        (["b-plain"], "integers", {}, ("0", "1")),
        (["b-plain"], "floats", {}, ("0", "1")),
        (["b-plain"], "generic", {}, ("LABEL_0", "LABEL_1")),
        (["b-plain", "words.pkl"], "integers", {}, ("0", "1")),
        (["words.pkl", "b-plain", "b-numbers"], "integers", {}, ("0", "1")),
        (["b-plain", "b-numbers"], "generic", {}, ("LABEL_0", "LABEL_1")),
        (["b-plain"], "integers", {"labels": [0, 1]}, ("0", "1")),
        (["b-plain", "words.pkl"], "data", {"labels": ["no", "yes"]}, ("no", "yes")),
        (["b-plain"], "stars", {"labels": [1, 2]}, ("1", "2")),
    ],
)
def test_numbered_outputs_need_no_map(
    root: Path, tmp_path: Path, teachers: list[str], data: str, keys: dict, classes: tuple[str, ...]
) -> None:
    plan = plan_of(root, *teachers, data=data, data_keys=keys)
    assert plan.corpus.label_names == classes and plan.columns == {}
    rows = plan.corpus.rows("test")
    answers = answers_of(plan, tmp_path)
    for teacher, logits_BV in zip(teachers, answers.logits_KBV, strict=True):
        if teacher.endswith(".pkl"):  # which has learnt what 0 and 1 are
            right = logits_BV.argmax(-1).numpy() == plan.corpus.labels_of(rows)
            assert right.mean() > 0.9


def test_the_map_of_a_teacher_names_its_outputs(root: Path, tmp_path: Path) -> None:
    turned = {"path": "b-plain", "labels": {"LABEL_0": "yes", "LABEL_1": "no"}}
    first = plan_of(root, turned, "a")
    assert first.corpus.label_names == ("yes", "no") and first.columns == {"t1": (1, 0)}
    second = plan_of(root, "a", turned)
    assert second.corpus.label_names == ("no", "yes") and second.columns == {"t1": (1, 0)}
    shown = {line.part: line.what for line in second.lines}
    assert shown["labels of t1"] == "no: LABEL_1, yes: LABEL_0" and "labels of t0" not in shown
    integers = {"path": "b-words", "labels": {"negative": 0, "positive": 1}}
    assert plan_of(root, integers, data="integers").corpus.label_names == ("0", "1")


REFUSED: list[tuple[list[Any], str, dict[str, Any], type[InputError], str]] = [
    (
        ["b-plain"],
        "data",
        {},
        InputError,
        r"'(no|yes)' in row 1 of .* 't0' .*; the data has no, yes",
    ),
    (
        ["b-plain"],
        "data",
        {},
        InputError,
        r"map them with teachers\.\w+\.labels: {LABEL_0: …, LABEL_1",
    ),
    (
        ["b-plain"],
        "stars",
        {},
        InputError,
        r"the data has 1, 2: map them .*{LABEL_0: …, LABEL_1: …}; or list data.labels in th",
    ),
    (["words.pkl"], "stars", {}, InputError, r"the label '2' in row .*\.labels: {'0': …, '1': …}"),
    (["a"], "integers", {}, InputError, r"teachers\.\w+\.labels: {'no': …, 'yes': …}; or correct"),
    (["a", "b-plain"], "data", {}, ModelError, r"teachers\.t1\.labels: {LABEL_0: …, LABEL_1: …}$"),
    (
        ["a", "b-words"],
        "data",
        {},
        ModelError,
        "'t1' .* negative, positive, those of teacher 't0' ",
    ),
    (
        ["a"],
        "integers",
        {"labels": [0, 1]},
        ModelError,
        r"data.labels are 0, 1: 'no' .*labels: {'no'",
    ),
    (
        ["three"],
        "data",
        {"labels": ["no", "yes"]},
        ModelError,
        "3 labels no, .* are 2: no, yes: 'maybe'",
    ),
    (["a"], "data", {"labels": ["no", "net"]}, ModelError, "'yes' matches none of them: map them"),
    (
        [{"path": "b-plain", "labels": {"LABEL_0": "no", "LABEL_1": "yess"}}],
        "data",
        {"labels": ["no", "yes"]},
        ConfigError,
        r"teachers\.\w+\.labels maps 'LABEL_1' to 'yess', which is not a label of data\.labels",
    ),
    (
        [{"path": "b-plain", "labels": {"LABEL_0": "no", "LABEL_1": "yess"}}],
        "data",
        {},
        InputError,
        r"the label 'yes' in row .* labels no, yess of teacher 't0' .*labels: {LABEL_1: …}; or",
    ),
]


@pytest.mark.parametrize(("teachers", "data", "keys", "kind", "message"), REFUSED)
def test_what_is_in_doubt_is_refused(root, teachers, data, keys, kind, message) -> None:
    with pytest.raises(kind, match=message) as caught:
        plan_of(root, *teachers, data=data, data_keys=keys)
    assert len(str(caught.value).splitlines()) == 1


def test_a_typo_in_the_data_is_not_for_a_map(root: Path, tmp_path: Path) -> None:
    table = pq.read_table(root / "data.parquet")
    labels = ["nope" if i == 0 else v for i, v in enumerate(table.column("label").to_pylist())]
    pq.write_table(
        table.set_column(table.schema.get_field_index("label"), "label", pa.array(labels)),
        root / "typo.parquet",
    )
    with pytest.raises(
        InputError, match=r"'nope' in row 1 .*no, nope, yes: correct it, or remove th"
    ):
        plan_of(root, "a", data="typo")


def test_an_unknown_label_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(UnknownLabelError("fault: way out", "fault")))
    assert (str(error), error.fault) == ("fault: way out", "fault")


def test_data_may_lack_a_class_but_not_the_first(root: Path) -> None:
    write_named(root / "three", root / "three-plain", ["LABEL_0", "LABEL_1", "LABEL_2"])
    assert plan_of(root, "three-plain", data="integers").corpus.label_names == ("0", "1", "2")
    message = r"train split has 1, 2 but no 0: .*{LABEL_0: …, LABEL_1: …, LABEL_2: …}"
    with pytest.raises(ModelError, match=message):
        plan_of(root, "three-plain", data="stars")


def test_labels_of_a_language_model_are_refused(root: Path) -> None:
    teacher = {"path": "a", "labels": {"LABEL_0": "no"}}
    with pytest.raises(
        ConfigError, match=r"teachers\.\w+\.labels .* applies only to classifiers, task is lang"
    ):
        plan_of(root, teacher, task="language_model")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [False, True]}, r"data\.labels\.0: YAML reads no, off and false as a boolean"),
        ({"labels": [0, 0]}, "data.labels needs at least two different"),
        ({"labels": [1, "1 "]}, "data.labels needs at least two different"),
        ({"labels": [0.5, 1]}, r"data\.labels\.0: 0\.5 is not a label"),
    ],
)
def test_labels_that_yaml_misread(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse({"data": {"path": "x"} | change, "output": "out"})


def test_a_map_that_yaml_misread() -> None:
    teacher = {"name": "a", "path": "x", "labels": {False: "no"}}
    with pytest.raises(ConfigError, match=r"teachers\.a\.labels: YAML reads no, off and false"):
        parse({"data": {"path": "x"}, "output": "out", "teachers": [teacher]})


def routed(root: Path, router: Any) -> Plan:
    """Three teachers named like domains, and a router with these classes."""
    table = pq.read_table(root / "data.parquet")
    model = make_pipeline(CountVectorizer(), LogisticRegression(C=100))
    model.fit(
        table.column("text").to_pylist(), [router(d) for d in table.column("domain").to_pylist()]
    )
    path = root / "router.pkl"
    path.write_bytes(pickle.dumps(model))
    names = ("tools", "films", "meals")
    teachers = [{"name": name, "path": "a"} for name in names]
    aggregation = {"type": "routed", "k": 1, "router": str(path), "allow_pickle": True}
    return plan_of(root, *teachers, aggregation=aggregation)


@pytest.mark.parametrize(
    ("router", "columns", "line"),
    [
        (lambda domain: domain, (2, 0, 1), None),  # sorted: films, meals, tools
        (("tools", "films", "meals").index, None, "tools: 0, films: 1, meals: 2"),
    ],
)
def test_a_router_may_name_the_teachers_in_any_order(
    root: Path, tmp_path: Path, router: Any, columns: Any, line: str | None
) -> None:
    plan = routed(root, router)
    assert plan.columns.get("router") == columns and isinstance(plan.experiment.aggregation, Routed)
    assert {x.part: x.what for x in plan.lines}.get("labels of router") == line
    answers = answers_of(plan, tmp_path)
    domain_teachers = plan.corpus.domain_teachers_of(plan.corpus.rows("test"), plan.teacher_names)
    assert (answers.queried_KB.int().argmax(0).numpy() == domain_teachers).all()


def test_a_router_of_experts_must_say_their_names(root: Path) -> None:
    routed(root, DOMAINS.index)
    raw = toy_experiment(root)
    raw["aggregation"] |= {"router": str(root / "router.pkl"), "allow_pickle": True}
    with pytest.raises(
        ModelError, match="labels 0, 1, 2, those of the teachers are films, meals, too"
    ):
        check(parse(raw))


def test_a_file_of_transfer_rows_does_not_hide_which_labels_the_data_has(
    root: Path, tmp_path: Path
) -> None:
    table = pq.read_table(root / "stars.parquet").drop_columns(["split"])
    pq.write_table(table, tmp_path / "train.parquet")
    pq.write_table(table.drop_columns(["label"]), tmp_path / "transfer.parquet")
    keys = {"path": str(tmp_path), "columns": {"text": "text", "label": "label", "split": None}}
    with pytest.raises(InputError, match=r"the data has 1, 2: map them with teachers\.t0\."):
        plan_of(root, "b-plain", data_keys=keys)


def test_answers_that_were_read_at_padding_are_not_found_again(root: Path, tmp_path: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(root / "a")
    pads = {}
    for pad in (tokenizer.pad_token_id, tokenizer.pad_token_id + 1):
        config = GPT2Config(
            vocab_size=len(tokenizer),
            n_embd=16,
            n_layer=1,
            n_head=2,
            id2label={0: "no", 1: "yes"},
            pad_token_id=pad,
        )
        folder = tmp_path / str(pad)
        GPT2ForSequenceClassification(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (spec,) = guidance_of(plan_of(root, str(folder)), tmp_path / "cache").teachers
        pads[pad] = spec.key.pooling
    assert list(pads.values()) == ["", "mask"]
