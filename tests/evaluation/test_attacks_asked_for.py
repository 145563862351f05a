"""Attacks run only where ``--attacks``, a setting or a gate needs them."""

from pathlib import Path

import pytest

from distill.driver.evaluate.standalone import _with_attacks
from distill.errors import ConfigError
from distill.evaluation.attacks import METHODS
from distill.evaluation.evaluated import EvaluationRequest
from distill.evaluation.gate import parse_gate
from distill.evaluation.names import needs_attacks
from distill.evaluation.settings import Evaluation, parse_settings
from distill.evaluation.source import EvaluationSource

ALL = tuple(METHODS)


@pytest.mark.parametrize(
    ("overrides", "methods"),
    [
        ([], ()),
        (["transform.num_samples=10"], ()),
        (["attack.budget=10"], ALL),
        (["attack.methods=[random]"], ("random",)),
        (["attack.methods=[]"], ()),
        (["attack.methods=[]", "attack.budget=10"], ()),
    ],
)
def test_a_setting_of_attacks_needs_them(overrides: list[str], methods: tuple[str, ...]) -> None:
    settings = parse_settings(overrides)
    assert settings.attack.methods == methods
    assert Evaluation.model_validate(settings.model_dump()) == settings


def methods(*overrides: str, attacks: bool = False, gate: str | None = None) -> tuple[str, ...]:
    settings = parse_settings(list(overrides))
    request = EvaluationRequest(
        Path("run"), EvaluationSource("rows.csv"), settings=settings, attacks=attacks
    )
    return _with_attacks(request, [parse_gate(gate)] if gate else []).attack.methods


def test_the_option_and_gates_need_them() -> None:
    assert methods() == ()
    assert methods(attacks=True) == ALL
    assert methods("attack.methods=[style]", attacks=True) == ("style",)
    assert methods(gate="robustness.asr > 0.5") == ALL
    assert methods(gate="robustness.transformed.accuracy < 0.5") == ()
    assert methods(gate="fidelity.any > 0.2") == ()


def test_a_contradiction_is_refused() -> None:
    for more in ({"attacks": True}, {"gate": "robustness.asr > 0.5"}):
        with pytest.raises(
            ConfigError, match=r"needs attacks, but attack.methods=\[\] disables them"
        ):
            methods("attack.methods=[]", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("robustness.asr", True),
        ("robustness.random.queries", True),
        ("teacher.robustness.accuracy", True),
        ("fidelity.relative_drop", True),
        ("fidelity.transformed.relative_drop", False),
        ("robustness.transformed.typos.flips", False),
        ("teacher.robustness.transformed.drop", False),
        ("test.accuracy", False),
    ],
)
def test_metrics_of_attacks(metric: str, expected: bool) -> None:
    assert needs_attacks(metric) == expected
