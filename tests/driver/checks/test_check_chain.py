"""The sizes of a chain's links as ``distill check`` finds them, and what it refuses."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sklearn.dummy import DummyClassifier
from transformers import Gemma2Config, Gemma2ForCausalLM

from distill.config import InitFrom, Student, parse
from distill.driver.checks.chain import with_chain
from distill.driver.checks.check import check
from distill.errors import ConfigError
from distill.models.load import check_folder
from distill.run_folder import identity
from distill.tasks.plan import Plan
from tests.toys import toy_experiment, write_encoder
from tests.toys_adapters import write_adapter
from tests.toys_language import (
    NUM_TOKENS,
    language_experiment,
    write_llama,
    write_tokenizer,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chain")
    toy_experiment(folder)
    write_encoder(folder / "classifier", num_labels=2)
    write_llama(folder / "deep", num_hidden_layers=8)
    model = DummyClassifier().fit([[""], [""]], ["no", "yes"])
    (folder / "dummy.pkl").write_bytes(pickle.dumps(model))
    language_experiment(folder)
    return folder


def classifiers(root: Path, chain: Any, **changes: Any) -> Plan:
    raw = toy_experiment(root, aggregation={"type": "mean"}, chain=chain)
    raw["student"] = {"layers": 1, "hidden": 8, "heads": 1, "ffn": 8}
    return check(parse(raw | changes))


def languages(root: Path, chain: Any, **changes: Any) -> Plan:
    raw = language_experiment(root, chain=chain, aggregation={"type": "mean"})
    return check(parse(raw | {"baselines": []} | changes))


def sizes(plan: Plan) -> list[int]:
    return [plan.task.student_size(plan, student).num_params for student in plan.links]


def shown(plan: Plan) -> dict[str, tuple[str, str]]:
    return {line.part: (line.what, line.size) for line in plan.lines}


def test_links_of_text_are_built_by_size(root: Path) -> None:
    """The experts' base has 19,840 parameters or so; the student's shape is fixed by its keys, the
    links' only by their parameters and layers."""
    plan = classifiers(root, {"links": 3})
    teacher = check_folder(root / "encoder").num_params
    student = plan.task.student_size(plan, plan.experiment.student).num_params
    ratio = student / teacher
    wanted = [teacher * ratio ** (i / 3) for i in (1, 2)]
    assert sizes(plan) == pytest.approx(wanted, rel=0.06)
    assert [link.layers for link in plan.links] == [2, 1]  # 2^(2/3) = 1.59, 2^(1/3) = 1.26
    assert all(link.hidden is link.heads is link.ffn is None for link in plan.links)
    lines = shown(plan)
    assert lines["chain"][0] == "3 links, stop: loss, epsilon 0.01"
    assert lines["chain"][1].startswith(f"the largest teacher has {teacher / student:.1f} times")
    assert lines["link 1"][0].startswith("2 layers, hidden ") and "link 2" in lines


def test_the_number_of_links_follows_from_the_sizes(root: Path) -> None:
    plan = classifiers(root, {})
    teacher = check_folder(root / "encoder").num_params
    student = plan.task.student_size(plan, plan.experiment.student).num_params
    assert 2 ** len(plan.links) < teacher / student <= 2 ** (len(plan.links) + 1)
    same = {"layers": 2, "hidden": 32, "ffn": 64}
    plan = classifiers(root, {}, student=same)
    assert plan.links == ()
    assert shown(plan)["chain"][0].startswith("no intermediate link")
    assert classifiers(root, {"links": 1}).links == ()


def test_links_of_a_language_model_keep_more_layers_where_the_student_keeps_some(
    root: Path,
) -> None:
    deep = {"name": "deep", "path": str(root / "deep")}
    start = {"path": str(root / "deep"), "layers": 1, "keep": "even"}
    student = {"init_from": start}
    plan = languages(root, {"links": 3}, teachers=[deep], student=student)
    kept = [link.init_from and (link.init_from.layers, link.init_from.keep) for link in plan.links]
    whole, one = sizes_of_layers(plan, root, 8), sizes_of_layers(plan, root, 1)
    each = (whole - one) / 7
    wanted = [1 + round((whole * (one / whole) ** (i / 3) - one) / each) for i in (1, 2)]
    assert kept == [(n, "even") for n in wanted] and wanted[0] > wanted[1] > 1
    plan = languages(root, {"links": 2}, teachers=[deep], student={"layers": 1, "hidden": 16})
    assert plan.links[0].init_from is None and plan.links[0].size_mb is not None


def sizes_of_layers(plan: Plan, root: Path, layers: int) -> int:
    start = InitFrom(path=str(root / "deep"), layers=layers)
    return plan.task.student_size(plan, Student(init_from=start)).num_params


def test_an_adapters_parameters_count(root: Path) -> None:
    """The served model is the base with its adapter."""
    write_adapter(root / "adapter", root / "deep", seed=1)
    deep = {"name": "deep", "path": str(root / "deep")}
    student = {"layers": 1, "hidden": 16}
    plain = languages(root, {"links": 2}, teachers=[deep], student=student)
    adapted = deep | {"adapter": str(root / "adapter")}
    more = languages(root, {"links": 2}, teachers=[adapted], student=student)
    assert more.links[0].size_mb > plain.links[0].size_mb  # type: ignore[operator]


def test_sizes_by_hand(root: Path) -> None:
    by_hand = [{"layers": 1, "hidden": 32}, {"layers": 1, "hidden": 16}]
    teacher = {"name": "dummy", "path": str(root / "dummy.pkl"), "allow_pickle": True}
    changes = {
        "experts": None,
        "teachers": [teacher],
        "student": {"tokenizer": str(root / "encoder")},
    }
    plan = classifiers(root, {"students": by_hand}, **changes)
    assert [link.hidden for link in plan.links] == [32, 16]
    assert shown(plan)["chain"] == ("3 links, stop: loss, epsilon 0.01", "")


BAD: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"experts": None}, "chain needs teachers, .*give experts or teachers, or remove chain"),
    ({"links": 0}, {}, r"chain\.links"),
    (
        {"links": 3, "students": [{"hidden": 16}]},
        {},
        r"chain\.links 3 counts the student, so chain\.students must have 2 sections.*has 1",
    ),
    (
        {"students": [{"hidden": 16, "vocab_size": 100}]},
        {},
        r"chain\.students\.0\.vocab_size 100: .*set student\.vocab_size, and remove this key",
    ),
    (
        {},
        {"baselines": [{"type": "labels_only", "name": "Link 1"}]},
        "baselines: 'Link 1' is the name of a link of the chain: use another name",
    ),
    (
        {"links": 4},
        {"student": {"layers": 2, "hidden": 64}},
        r"chain\.links 4: the student has [\d,]+ parameters, the largest teacher [\d,]+, so no "
        "size lies between them",
    ),
    (
        {"links": 30},
        {"student": {"layers": 2, "hidden": 24}},
        r"chain\.links 30: link \d+ would have .*use fewer links, or give chain\.students",
    ),
    (
        {"links": 2, "students": [{"path": "{root}/classifier"}]},
        {"student": {"vocab_size": 64}},
        r"chain\.students\.0 starts from .*/classifier, whose tokens are not .* remove "
        r"student\.vocab_size",
    ),
    (
        {"students": [{"family": "mlp", "hidden": 16}]},
        {},
        r"chain\.students\.0\.family is mlp, the data is text",
    ),
    (
        {"students": [{"hidden": 32}, {"hidden": 18, "heads": 4}]},
        {},
        r"chain\.students\.1: student\.heads 4 must divide the hidden size, 18",
    ),
    (
        {"students": [{"hidden": 16, "kv_heads": 1}]},
        {},
        r"chain\.students\.0\.kv_heads 1 applies only to language models",
    ),
]


@pytest.mark.parametrize(("chain", "changes", "message"), BAD)
def test_what_a_chain_cannot_be(
    root: Path, chain: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    for student in chain.get("students", []):
        student |= {k: str(v).format(root=root) for k, v in student.items() if k == "path"}
    with pytest.raises(ConfigError, match=message):
        classifiers(root, chain, **changes)


def test_teachers_and_students_without_computable_sizes_name_the_way_out(root: Path) -> None:
    teacher = {"name": "dummy", "path": str(root / "dummy.pkl"), "allow_pickle": True}
    tokens = {"student": {"hidden": 8, "tokenizer": str(root / "encoder")}}
    changes = {"experts": None, "teachers": [teacher], **tokens}
    message = (
        r"chain\.links auto: teacher 'dummy' has no parameter count .*set chain\.links to a "
        r"number, and give chain\.students"
    )
    with pytest.raises(ConfigError, match=message):
        classifiers(root, {}, **changes)
    path = {"path": str(root / "classifier")}
    with pytest.raises(ConfigError, match=r"a student with student\.path .*give chain\.students"):
        classifiers(root, {"links": 2}, student=path)


def test_a_link_must_be_able_to_send_its_outputs(root: Path) -> None:
    """It is served in the wire of the first teacher; Gemma 2 caps its logits."""
    config = Gemma2Config(
        vocab_size=NUM_TOKENS,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=16,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    Gemma2ForCausalLM(config).save_pretrained(root / "capped")
    write_tokenizer(root / "capped")
    deep = {"name": "deep", "path": str(root / "deep"), "wire": {"type": "hidden"}}
    changes = {"teachers": [deep], "student": {"layers": 1, "hidden": 16}}
    chain = {"students": [{"path": str(root / "capped")}]}
    with pytest.raises(
        ConfigError, match=r"chain: link 1 starts from .*/capped, a model that caps"
    ):
        languages(root, chain, **changes)
    deep["wire"] = {"type": "dense"}
    assert languages(root, chain, **changes).links[0].path == str(root / "capped")


def test_a_domain_cannot_be_named_like_a_link(root: Path) -> None:
    plan = replace(classifiers(root, {"links": 1}), teacher_names=("films", "link 1"))
    with pytest.raises(ConfigError, match="the teacher 'link 1' has the name of a link"):
        with_chain(plan, {})


def test_a_sweep_has_no_chain(root: Path) -> None:
    raw = toy_experiment(
        root, chain={}, search={"space": {"kd.alpha": {"type": "grid", "values": [0]}}}
    )
    with pytest.raises(ConfigError, match=r"chain \(links: auto\) applies only to distill train"):
        check(parse(raw), command="sweep")
    raw["search"] = {"space": {"chain.links": {"type": "grid", "values": [2]}}}
    with pytest.raises(ConfigError, match=r"search\.space\.chain\.links cannot be searched"):
        check(parse(raw))


def test_the_identity_of_a_run_without_a_chain_is_as_before(root: Path) -> None:
    plain = identity(parse(toy_experiment(root)), "data")
    assert not [key for key in plain if key.startswith("chain")]
    chained = identity(parse(toy_experiment(root, chain={"epsilon": 0.02})), "data")
    assert chained.keys() - plain.keys() == {
        f"chain.{key}" for key in ("links", "stop", "epsilon", "students")
    }
