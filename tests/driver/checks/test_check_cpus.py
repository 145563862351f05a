"""``num_cpus: auto`` fits the machine: resolved in the plan, outside the run's identity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distill.config import Experiment, Serving, parse
from distill.driver.checks.check import check
from distill.driver.checks.resources import refuse_shortage, shared_cpus
from distill.errors import ConfigError
from distill.run_folder import identity
from distill.tasks.plan import Plan
from tests.toys import toy_experiment, write_encoder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cpus")
    toy_experiment(root)
    write_encoder(root / "expert", num_labels=2)
    return root


def experiment(root: Path, cpus: float, teachers: list[dict[str, Any]], **changes: Any):
    raw = toy_experiment(root)
    raw.pop("experts")
    folder = {"path": str(root / "expert")}
    named = [{"name": f"t{i}"} | folder | keys for i, keys in enumerate(teachers)]
    kept = {"aggregation": {"type": "mean"}, "cluster": {"num_cpus": cpus}, "teachers": named}
    return parse(raw | kept | {"output": str(root / "run")} | changes)


def planned(given: Experiment) -> tuple[list[Any], Plan]:
    plan = check(given)
    return [t.num_cpus for t in plan.experiment.teachers], plan


@pytest.mark.parametrize(
    ("cpus", "teachers", "shares"),
    [
        (8, [{}, {}], [1, 1]),  # never more than 1: more threads would change sums
        (2, [{}, {}], [0.5, 0.5]),  # what the one rank leaves
        (2, [{}, {}, {}], [0.33, 0.33, 0.33]),
        (2, [{}, {"replicas": 3}], [0.25, 0.25]),
        (2, [{}, {"num_cpus": 0.4}], [0.6, 0.4]),
        (1, [{}, {}], [0, 0]),  # the rank has the only CPU: they use it too
        (2, [{"replicas": 11}], [0]),
        (2, [{"num_cpus": 1}], [1]),
    ],
)
def test_teachers_share_what_the_ranks_leave(
    root: Path, cpus: float, teachers: list[dict[str, Any]], shares: list[float]
) -> None:
    found, plan = planned(experiment(root, cpus, teachers))
    assert found == shares
    replicas = [t.replicas for t in plan.experiment.teachers]
    assert plan.num_cpus == pytest.approx(
        1 + sum(n * s for n, s in zip(replicas, shares, strict=True))
    )
    assert plan.num_cpus <= cpus + 1e-9


def test_the_plan_shows_what_was_chosen(root: Path) -> None:
    _, plan = planned(experiment(root, 2, [{}, {}]))
    (line,) = [line for line in plan.lines if line.part == "resources"]
    assert line.what == "2 CPUs, 0 GPUs in total"
    assert line.size == "num_cpus auto is 0.5 for each teacher replica"


def test_numbers_are_as_given_and_refused_where_they_do_not_fit(root: Path) -> None:
    with pytest.raises(ConfigError, match="need 3 CPUs at once, this machine has 2"):
        check(experiment(root, 2, [{"num_cpus": 1}, {"num_cpus": 1}]))


def test_experts_and_their_router_share_too(root: Path) -> None:
    raw = toy_experiment(root)
    del raw["experts"]["serving"], raw["experts"]["router"]["serving"]
    plan = check(parse(raw | {"cluster": {"num_cpus": 2}, "output": str(root / "experts-run")}))
    experts = plan.experiment.experts
    assert experts is not None and experts.router is not None
    # Three experts and the router, of the one CPU that the rank leaves.
    assert experts.serving.num_cpus == experts.router.serving.num_cpus == 0.25


def test_on_a_cluster_each_has_one(root: Path) -> None:
    raw = experiment(root, 2, [{}, {}]).model_dump(mode="json")
    raw["cluster"] = {"address": "auto"}
    plan = check(parse(raw))
    assert [t.cpus for t in plan.experiment.teachers] == [1, 1] and plan.num_cpus == 3


def test_the_identity_of_a_run_is_the_same_on_every_machine(root: Path) -> None:
    given = [experiment(root, cpus, [{}, {"num_cpus": 1}]) for cpus in (2, 8)]
    explicit = experiment(root, 8, [{"num_cpus": 0.1}, {"num_cpus": 1}])
    plans = [check(each) for each in [*given, explicit]]
    assert plans[0].identity == plans[1].identity == plans[2].identity
    assert identity(plans[0].experiment, "x") == identity(given[0], "x")


def test_shares_are_hundredths_that_fit() -> None:
    assert shared_cpus(1.0, 3) == 0.33 and shared_cpus(1.0, 7) == 0.14
    assert shared_cpus(0.3, 3) == 0.1  # 0.3 / 3 is below 0.1 in floating point
    assert shared_cpus(0.29, 3) == 0 and shared_cpus(-1, 1) == 0
    assert Serving().cpus == 1 and Serving(num_cpus=0.5).cpus == 0.5


def test_without_a_gpu_the_way_out_is_the_cpus() -> None:
    with pytest.raises(ConfigError, match="need 1 GPU at once, this machine has 0: leave num_gpus"):
        refuse_shortage("GPUs", 1, 0)
    with pytest.raises(ConfigError, match="need 2 GPUs at once, this machine has 1: lower repl"):
        refuse_shortage("GPUs", 2, 1)
