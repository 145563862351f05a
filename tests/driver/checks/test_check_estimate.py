"""``distill check``: steps, operations and memory by hand; the range by a stated rate."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill.cluster.estimates import STEP_S
from distill.config import parse
from distill.data.tokens import tokenise
from distill.driver.checks.check import check
from distill.driver.checks.estimate import SLACK, START_S, estimate
from distill.driver.checks.process_memory import PROCESS_MB
from distill.driver.checks.rate import measured_rate
from distill.models.load import check_folder
from distill.models.load import load_tokenizer as any_tokenizer
from distill.run_folder import RunFolder
from tests.toys import toy_experiment, write_encoder
from tests.toys_language import language_experiment

RATE = 1e9


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("estimate")
    toy_experiment(root)
    write_encoder(root / "expert", num_labels=2)
    return root


def planned(root: Path, **changes: Any):
    raw = toy_experiment(root)
    del raw["experts"], raw["baselines"]
    teachers = [{"name": "one", "path": str(root / "expert")}]
    kept = {"aggregation": {"type": "mean"}, "teachers": teachers, "cluster": {"num_cpus": 2}}
    return check(parse(raw | kept | {"output": str(root / "run")} | changes))


def test_steps_are_those_of_the_students_rows(root: Path) -> None:
    plan = planned(root, trainer={"batch_size": 16, "epochs": 2.5})
    found = estimate(plan, RATE)
    assert found.steps_per_epoch == math.ceil((162 + 162) / 16) == 21
    assert found.num_steps == math.ceil(2.5 * 21)
    alone = planned(root, teachers=[], student={"scale": "tiny", "tokenizer": str(root / "expert")})
    batch_size = alone.experiment.trainer.batch_size
    assert estimate(alone, RATE).steps_per_epoch == math.ceil(162 / batch_size)


def test_operations_and_seconds_follow_from_parameters_and_tokens(root: Path) -> None:
    student = {"layers": 2, "hidden": 32, "heads": 2, "ffn": 64}
    plan = planned(root, student=student, trainer={"batch_size": 16, "epochs": 1})
    found = estimate(plan, RATE)
    vocab = len(any_tokenizer(root / "expert"))
    # Of a layer: 4 of attention and 2 of ffn with biases, 2 norms. Pooler and head of two labels.
    layer = 4 * (32 * 32 + 32) + (32 * 64 + 64) + (64 * 32 + 32) + 4 * 32
    others = 2 * 32 + 2 * 32 + 32 * 32 + 32 + 32 * 2 + 2  # norm, token types
    assert found.student.num_active == 2 * layer + others
    assert found.student.num_params == found.student.num_active + (vocab + 16) * 32
    lengths = tokenise(plan.corpus, plan.tokenizer, 16).lengths(plan.corpus.rows("train"))
    teacher = check_folder(root / "expert")
    active = teacher.num_params - teacher.vocab_size * teacher.hidden
    rows = 21 * 16
    expected = lengths.mean() * (
        6 * found.student.num_active * rows
        + 2 * found.student.num_active * 78
        + 2 * active * (324 + 78 + 78)
    )
    assert found.operations == pytest.approx(expected, rel=1e-6)
    faster = estimate(plan, 2 * RATE)
    assert found.seconds is not None and faster.seconds is not None
    low, high = found.seconds
    assert high - START_S[1] == pytest.approx(SLACK * (low - START_S[0]))
    assert faster.seconds[0] < low


def test_memory_is_of_states_activations_and_processes(root: Path) -> None:
    plain = estimate(planned(root), RATE)
    states = plain.student.num_params * 16 / 1e6
    assert PROCESS_MB + states < plain.rank_mb < PROCESS_MB + states + 10
    assert plain.memory_mb > 2 * PROCESS_MB  # the rank, and one teacher
    two = estimate(planned(root, trainer={"num_workers": 2, "num_cpus_per_worker": 0.5}), RATE)
    # ZeRO-1: of AdamW's 8 bytes each rank has a half.
    assert plain.rank_mb - two.rank_mb > plain.student.num_params * 4 / 1e6


def with_experts(root: Path, num_cpus: int, **cluster: Any):
    raw: dict[str, Any] = {**toy_experiment(root), "output": str(root / "run")}
    raw["experts"]["router"]["targets"] = "lowest_loss"
    return check(parse(raw | {"cluster": {"num_cpus": num_cpus} | cluster}))


def test_the_critical_path_goes_through_expert_router_and_student(root: Path) -> None:
    # Teachers and student need 1.4 CPUs: of 4, the baseline has one at the same time.
    plan = with_experts(root, 4)
    found = estimate(plan, RATE)
    path = dict(found.critical)
    *_, router, student = path
    assert len(path) == 3 and (router, student) == ("router", "student")
    base = check_folder(root / "encoder")
    active = base.num_params - base.vocab_size * base.hidden
    lengths = tokenise(plan.corpus, plan.tokenizer, 16).lengths(plan.corpus.rows("train"))
    # 162 rows, batch 16, 12 epochs of 11 steps, 78 rows evaluated after each.
    batch_size = plan.experiment.experts.router.batch_size  # type: ignore[union-attr]
    steps = 12 * math.ceil(162 / batch_size)
    rows = 6 * batch_size * steps + 2 * 78 * 12
    expected = active * lengths.mean() * rows / RATE + steps * STEP_S
    assert path["router"] == pytest.approx(expected)
    # The experts are alike (54 rows each) and run at once, with the baseline.
    assert found.parallel_s == pytest.approx(sum(path.values()))
    expert = next(iter(path.values()))
    assert found.serial_s > found.parallel_s + 2 * expert  # and the baseline
    (line,) = [line for line in found.lines if line.part == "critical path"]
    first, second, third = line.what.split(" → ")
    assert [first.split()[0], second.split()[0], third.split()[0]] == list(path)
    assert line.size.startswith("all stages ") and "; on 4 CPUs " in line.size
    assert found.as_json()["critical_path"] == [
        {"stage": name, "min_seconds": seconds} for name, seconds in path.items()
    ]


def test_a_baseline_without_room_next_to_the_student_delays_it(root: Path) -> None:
    roomy, tight = estimate(with_experts(root, 4), RATE), estimate(with_experts(root, 2), RATE)
    assert roomy.serial_s == pytest.approx(tight.serial_s)
    assert tight.parallel_s > roomy.parallel_s
    # Its process needs memory at the same time as the student's.
    assert roomy.memory_mb == pytest.approx(tight.memory_mb + tight.rank_mb)
    one = estimate(with_experts(root, 4, max_tasks=1), RATE)
    assert one.parallel_s == pytest.approx(one.serial_s) and one.memory_mb == tight.memory_mb


def test_links_of_a_chain_follow_each_other(root: Path) -> None:
    sizes = [{"layers": layers, "hidden": 32, "heads": 2} for layers in (3, 2)]
    chain = {"links": 3, "students": sizes}
    without = planned(root, cluster={"num_cpus": 4})
    found = estimate(planned(root, cluster={"num_cpus": 4}, chain=chain), RATE)
    assert [name for name, _ in found.critical] == ["link 1", "link 2", "student"]
    assert found.parallel_s == found.serial_s == sum(seconds for _, seconds in found.critical)
    # Each link has the student's steps, and answers about the rows as a teacher of the next one.
    plan = planned(root, cluster={"num_cpus": 4}, chain=chain)
    lengths = tokenise(plan.corpus, plan.tokenizer, 16).lengths(plan.corpus.rows("train"))
    active = sum(plan.task.student_size(plan, link).num_active for link in plan.links)
    alone = estimate(without, RATE)
    rows = 6 * plan.experiment.trainer.batch_size * alone.num_steps + 2 * 78 * 8
    forwards = 2 * (324 + 78 + 78)
    added = active * lengths.mean() * (rows + forwards)
    assert found.operations - alone.operations == pytest.approx(added, rel=1e-6)


def test_a_student_alone_has_no_critical_path(root: Path) -> None:
    assert "critical path" not in {line.part for line in estimate(planned(root), RATE).lines}


def test_layers_that_are_not_trained_need_a_forward_alone(root: Path) -> None:
    raw = toy_experiment(root) | {"output": str(root / "run"), "baselines": []}
    plan = check(parse(raw))
    raw["experts"] = raw["experts"] | {"train_layers": 1}
    partly = check(parse(raw))
    base = check_folder(root / "encoder")
    active = base.num_params - base.vocab_size * base.hidden
    lengths = tokenise(plan.corpus, plan.tokenizer, 16).lengths(plan.corpus.rows("train"))
    # One of two layers: 4 instead of 6 operations, for 56 steps of 8 rows in 3 experts.
    saved = 2 * active * lengths.mean() * 3 * 56 * 8
    operations = [estimate(of, RATE).operations for of in (plan, partly)]
    assert operations[0] - operations[1] == pytest.approx(saved)


def test_what_cannot_be_known_here_says_why(root: Path) -> None:
    raw = planned(root).experiment.model_dump(mode="json")
    found = estimate(check(parse(raw | {"cluster": {"address": "auto"}})), RATE)
    assert found.seconds is None and found.why == "not estimated: it runs on a cluster"
    assert found.as_json()["min_seconds"] is None and found.num_steps > 0
    shown = {line.part: line.what for line in found.lines}
    assert shown["duration"] == "not estimated: it runs on a cluster"


def test_of_low_rank_updates_alone_are_trained(tmp_path: Path) -> None:
    raw = language_experiment(tmp_path) | {"output": str(tmp_path / "run")}
    lora = {"rank": 2, "targets": ["q_proj"]}
    raw["student"] = {"path": raw["teachers"][0]["path"], "lora": lora}
    plan = check(parse(raw))
    model = plan.task.student_size(plan, plan.experiment.student)
    assert 0 < model.num_trained < model.num_params / 10
    (line,) = [line for line in estimate(plan, RATE).lines if line.part == "trained"]
    assert line.what == f"{model.num_trained:,} parameters"
    assert line.size.endswith(f"% of the student's {model.num_params:,}")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        ((12.0, 50.0), "about 12 to 50 s"),
        ((100.0, 400.0), "about 1.7 to 6.7 min"),
        ((3600.0, 14400.0), "about 1 to 4 h"),
    ],
)
def test_a_range_has_two_figures(root: Path, seconds: tuple[float, float], shown: str) -> None:
    found = estimate(planned(root), RATE)
    made = replace(found, seconds=seconds)
    assert {line.part: line.what for line in made.lines}["duration"] == shown


def test_a_rate_is_measured() -> None:
    assert measured_rate(64, 64, "cpu") > 1e6


def test_the_output_is_shown_whole_with_where_it_resumes(root: Path) -> None:
    raw = toy_experiment(root) | {"output": str(root / "begun")}
    plan = check(parse(raw))
    assert plan.lines[-1].what == str(root / "begun") and plan.lines[-1].size == "new"
    RunFolder(root / "begun").claim(plan.experiment, plan.identity)

    def state() -> str:
        return check(parse(raw)).lines[-1].size

    assert state() == "resumes; the student has no checkpoint yet"
    checkpoint = root / "begun/fit/checkpoints/step-00000200"
    checkpoint.mkdir(parents=True)
    (checkpoint / "cursor.json").write_text("{}")
    assert state() == "resumes from step 200"
    (root / "begun/fit/done.json").write_text("{}")
    assert state() == "the student is trained"
