"""Load, confidence and accuracy of a router are their definitions."""

import math
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from distill.aggregation import Routed
from distill.evaluation.routing import Routing, routing_of
from distill.report.router_plot import router_png

LOGITS_RK = np.log(
    np.array([[0.7, 0.2, 0.1], [0.6, 0.1, 0.3], [0.2, 0.3, 0.5], [0.1, 0.8, 0.1]], np.float32)
)


def routing(k: int = 2, domains: tuple[int, ...] = (0, 0, 1, -1)) -> Routing:
    names = ("a", "b", "c")
    return routing_of(Routed(k=k), names, LOGITS_RK, np.array(domains), ("x", "y"))


def test_load_is_the_share_of_selections() -> None:
    # Top 2: ab, ac, cb, ba (a before c, which is as probable).
    found = routing().metrics()
    assert [found[f"router.load.{n}"] for n in "abc"] == pytest.approx([3 / 8, 3 / 8, 2 / 8])
    assert found["router.confidence"] == pytest.approx((0.7 + 0.6 + 0.5 + 0.8) / 4)
    assert "router.accuracy" not in found
    by_domain = routing().load_by_domain()
    assert list(by_domain) == ["x", "y", "no domain"]
    assert by_domain["x"].tolist() == [2 / 8, 1 / 8, 1 / 8]
    assert sum(by_domain.values()).tolist() == routing().load_K.tolist()  # type: ignore[union-attr]
    assert math.isclose(sum(routing(k=1).load_K), 1)


def test_accuracy_is_over_rows_whose_part_has_an_expert() -> None:
    domain_teacher_R = np.array([0, 2, 2, -1])
    assert routing().metrics(domain_teacher_R)["router.accuracy"] == pytest.approx(2 / 3)
    assert "router.accuracy" not in routing().metrics(np.full(4, -1))


def test_the_plot_is_legible_and_takes_many_experts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"a domain of some length {i}" for i in range(8)]
    many = routing_of(
        Routed(k="all"),
        names,
        rng.normal(size=(90, 8)).astype(np.float32),
        np.arange(90) % 8,
        names,
    )
    for path in (
        router_png(routing(), tmp_path / "few.png"),
        router_png(many, tmp_path / "many.png"),
    ):
        pixels = matplotlib.image.imread(path)
        assert pixels.shape[1] == 1440 and pixels.std() > 0.05
