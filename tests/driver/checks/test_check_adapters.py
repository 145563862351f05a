"""Adapters that could not be served are refused beforehand; the plan says who shares a base."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from distill.config import parse
from distill.driver.checks.check import check
from distill.driver.checks.resources import check_resources
from distill.driver.context import Driver
from distill.driver.serve import teacher_specs
from distill.errors import ConfigError, InputError, ModelError
from distill.models.adapter import adapter_fingerprint
from distill.tasks.plan import Plan
from tests.toys import toy_experiment
from tests.toys_adapters import write_adapter
from tests.toys_language import language_experiment, write_llama, write_tokenizer
from tests.toys_moe import mixture

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("check-adapters")
    language_experiment(folder)
    base = folder / "films"
    good = write_adapter(folder / "good", base, seed=0)
    write_adapter(folder / "other", base, seed=1, r=2, target_modules="all-linear")
    write_llama(folder / "wide", hidden_size=64)
    write_llama(folder / "deep", num_hidden_layers=3)
    write_adapter(folder / "of-wide", folder / "wide", seed=0)
    write_adapter(folder / "of-deep", folder / "deep", seed=0)
    write_adapter(folder / "head", base, seed=0, target_modules=["q_proj", "lm_head"])
    write_adapter(folder / "embedding", base, seed=0, target_modules=["q_proj", "embed_tokens"])
    write_adapter(folder / "saved", base, seed=0, modules_to_save=["lm_head"])
    write_adapter(folder / "dora", base, seed=0, use_dora=True)
    write_adapter(folder / "biased", base, seed=0, bias="all")
    mixture().save_pretrained(folder / "mixture")
    write_tokenizer(folder / "mixture")
    write_adapter(folder / "experts", folder / "mixture", seed=0, target_modules="all-linear")
    (folder / "empty").mkdir()
    cut = copied(good, folder / "cut") / WEIGHTS
    cut.write_bytes(cut.read_bytes()[:-100])
    pickled = copied(good, folder / "pickled")
    torch.save(load_file(pickled / WEIGHTS), pickled / "adapter_model.bin")
    (pickled / WEIGHTS).unlink()
    (copied(good, folder / "half") / WEIGHTS).unlink()
    lacking = copied(good, folder / "lacking")
    tensors = load_file(lacking / WEIGHTS)
    save_file(dict(list(tensors.items())[1:]), lacking / WEIGHTS)
    (copied(good, folder / "garbled") / CONFIG).write_text("{")
    configured(good, folder / "ia3", peft_type="IA3")
    configured(good, folder / "pissa", init_lora_weights="pissa")
    configured(good, folder / "newer", use_tomorrow=True)
    configured(good, folder / "unknown-layer", target_modules=["query"])
    return folder


def copied(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder)
    return folder


def configured(source: Path, folder: Path, **changes: Any) -> None:
    path = copied(source, folder) / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def teacher(root: Path, name: str, adapter: str | None, **changes: Any) -> dict[str, Any]:
    raw = {"name": name, "path": str(root / "films"), "num_cpus": 0.1, **changes}
    return raw if adapter is None else raw | {"adapter": str(root / adapter)}


def plan_of(root: Path, out: Path, *teachers: dict[str, Any], **changes: Any) -> Plan:
    raw = language_experiment(root, teachers=list(teachers), output=str(out / "run"), **changes)
    return check(parse(raw | {"aggregation": {"type": "mean"}}))


BAD: list[tuple[dict[str, Any], str]] = [
    ({"adapter": "absent"}, "there is no adapter folder .*absent: check the path"),
    (
        {"adapter": "empty"},
        "empty is not an adapter, it has no adapter_config.json.*check the path",
    ),
    ({"adapter": "meals"}, "meals is not an adapter.*for a whole model, set only path"),
    ({"adapter": "cut"}, "truncated or not a safetensors file .*copy it again"),
    ({"adapter": "pickled"}, "only as the pickle adapter_model.bin.*save_pretrained"),
    ({"adapter": "half"}, "half has no adapter_model.safetensors: copy the whole folder"),
    ({"adapter": "garbled"}, "adapter_config.json is not an adapter's: copy"),
    ({"adapter": "ia3"}, "ia3 is of peft_type IA3, only LORA .*merge_and_unload"),
    ({"adapter": "pissa"}, "init_lora_weights is 'pissa' .*merge_and_unload"),
    ({"adapter": "dora"}, "use_dora is True .*merge_and_unload"),
    ({"adapter": "biased"}, "bias is 'all' .*merge_and_unload"),
    (
        {"adapter": "experts", "path": "mixture"},
        "target_parameters is .*only low-rank updates of linear layers.*merge_and_unload",
    ),
    ({"adapter": "newer"}, "use_tomorrow is True .*merge_and_unload"),
    ({"adapter": "saved"}, r"modules_to_save is \['lm_head'\] .*merge_and_unload"),
    ({"adapter": "head"}, "head changes lm_head, and adapters share .*train it without"),
    ({"adapter": "embedding"}, "embedding changes model.embed_tokens, and adapters share"),
    ({"adapter": "of-wide"}, r"does not fit .*films: its model\S+ is \[\d+, 64\].*must be .*wide"),
    (
        {"adapter": "of-deep"},
        "of-deep does not fit .*films: it has .*layers.2.* the base does not have",
    ),
    ({"adapter": "good", "path": "deep"}, "good does not fit .*deep: it lacks .*layers.2"),
    ({"adapter": "lacking"}, "lacking does not fit .*: it lacks .*lists: give the base"),
    (
        {"adapter": "unknown-layer"},
        "unknown-layer does not fit .*query.* not found.*give the",
    ),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_an_adapter_that_could_not_be_served_is_refused(
    root: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    raw = teacher(root, "films", None) | {k: str(root / v) for k, v in changes.items()}
    with pytest.raises(ModelError, match=re.compile(message, re.DOTALL)) as caught:
        plan_of(root, tmp_path, raw)
    assert "teachers.films.adapter" in str(caught.value)
    assert str(root / changes["adapter"]) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_updates_of_a_mixtures_experts_are_refused(root: Path, tmp_path: Path) -> None:
    """Before they are trained: afterwards they could not be served together."""
    raw = language_experiment(root, output=str(tmp_path / "run"))
    del raw["teachers"]
    raw["experts"] = {"base": str(root / "mixture"), "lora": {}, "batch_size": 4}
    message = "experts.lora.targets all-linear: of a mixtral .*such as .q_proj"
    with pytest.raises(ConfigError, match=message):
        check(parse(raw))
    raw["experts"]["lora"] = {"targets": ["q_proj", "v_proj"]}
    lines = {line.part: line.what for line in check(parse(raw)).lines}
    assert "2 adapters on one base" in lines["2 experts"]


def test_a_classifier_has_no_adapter(tmp_path: Path) -> None:
    raw = toy_experiment(tmp_path)
    raw.pop("experts")
    raw["aggregation"] = {"type": "mean"}
    raw["teachers"] = [{"name": "films", "path": "films", "adapter": "adapters/films"}]
    message = "teachers.films.adapter adapters/films applies only to language models, .*merge it"
    with pytest.raises(ConfigError, match=message) as caught:
        check(parse(raw))
    assert isinstance(caught.value, InputError)


def test_the_plan_counts_a_shared_base_once(root: Path, tmp_path: Path) -> None:
    served = (teacher(root, "good", "good"), teacher(root, "other", "other"))
    plan = plan_of(root, tmp_path, *served)
    shown = {line.part: line for line in plan.lines}
    assert "2 adapters on one base" in shown["good, other"].what
    assert plan.num_cpus == pytest.approx(1.1)
    assert plan.num_gpus == 0


def test_the_plan_says_why_a_base_is_served_twice(root: Path, tmp_path: Path) -> None:
    apart = teacher(root, "other", "other", num_cpus=0.2, dtype="bfloat16")
    plan = plan_of(root, tmp_path, teacher(root, "good", "good"), apart)
    shown = {line.part: line.what for line in plan.lines}
    expected = "apart from other on the same base (other dtype, num_cpus)"
    assert expected in shown["good"] and "on one base" not in shown["good"]
    assert "apart from good on the same base" in shown["other"]
    assert plan.num_cpus == pytest.approx(1.3)


def test_memory_is_that_of_one_base_and_its_updates(root: Path) -> None:
    class Big:
        num_params = 1_000_000_000

    teachers = [
        teacher(root, name, name, dtype="bfloat16", replicas=2) for name in ("good", "other")
    ]
    experiment = parse(language_experiment(root, teachers=teachers))
    infos = {"good": Big(), "other": Big()}
    updates = {"good": 1_000_000, "other": 4_000_000}
    lines = check_resources(experiment, 2, infos, None, updates).lines
    assert lines[0].size == f"{2 * (2000 + 5 * 4):,} MB of weights"


def key_of(plan: Plan, name: str) -> Any:
    driver = Driver(plan, *[None] * 4)  # type: ignore[arg-type]
    specs, _ = teacher_specs(driver, [])
    return next(spec.key for spec in specs if spec.name == name)


def test_another_adapter_never_answers_from_the_same_cache(root: Path, tmp_path: Path) -> None:
    plain = teacher(root, "base", None)
    both = (teacher(root, "good", "good"), teacher(root, "other", "other"), plain)
    plan = plan_of(root, tmp_path, *both)
    found = [key_of(plan, name) for name in ("good", "other", "base")]
    assert len({key.fingerprint for key in found}) == 3
    again = plan_of(root, tmp_path, teacher(root, "renamed", "good"))
    assert key_of(again, "renamed") == found[0]
    trained_on = copied(root / "good", tmp_path / "trained-on")
    tensors = load_file(trained_on / WEIGHTS)
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] * 2}, trained_on / WEIGHTS)
    other = plan_of(root, tmp_path, teacher(root, "good", str(trained_on)))
    assert key_of(other, "good").fingerprint != found[0].fingerprint


def test_a_fingerprint_is_of_what_an_adapter_does(root: Path, tmp_path: Path) -> None:
    expected = adapter_fingerprint(root / "good")
    configured(root / "good", tmp_path / "moved", base_model_name_or_path="elsewhere")
    configured(root / "good", tmp_path / "scaled", lora_alpha=99)
    configured(root / "good", tmp_path / "ordered", target_modules=["v_proj", "q_proj"])
    configured(root / "good", tmp_path / "disordered", target_modules=["q_proj", "v_proj"])
    assert adapter_fingerprint(tmp_path / "moved") == expected
    assert adapter_fingerprint(tmp_path / "scaled") != expected
    ordered, disordered = (adapter_fingerprint(tmp_path / n) for n in ("ordered", "disordered"))
    assert ordered == disordered == expected
