"""Gates: what they refuse beforehand, and when they fail."""

import pytest

from distill.errors import ConfigError
from distill.evaluation.gate import check_metric, parse_gate

KNOWN = ("test.accuracy", "fidelity.any", "fidelity.relative_drop")


@pytest.mark.parametrize(
    ("text", "value", "fails"),
    [
        ("fidelity.any > 0.2", 0.21, True),
        ("fidelity.any > 0.2", 0.2, False),
        ("fidelity.any>=0.2", 0.2, True),
        ("fidelity.any < 0.2", 0.1, True),
        ("fidelity.any<=2e-1", 0.3, False),
    ],
)
def test_a_gate_fails_where_it_holds(text: str, value: float, fails: bool) -> None:
    failure = parse_gate(text).failure({"fidelity.any": value})
    assert (failure is not None) == fails
    assert failure is None or f"{value:g}" in failure


def test_a_domain_may_have_spaces() -> None:
    gate = parse_gate("test.accuracy.Code Injection < 0.8")
    assert gate.failure({"test.accuracy.Code Injection": 0.7}) is not None


def test_a_metric_that_is_not_defined_fails_its_gate() -> None:
    gate = parse_gate("fidelity.relative_drop > 1")
    failure = gate.failure({"fidelity.relative_drop": None})
    assert failure is not None and "not defined" in failure


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fidelity.any", "such as 'fidelity.any > 0.2'"),
        ("fidelity.any > much", "'much' is not a number"),
        ("fidelity.any > nan", "nan cannot be compared"),
        ("fidelity.agreemnt > 0.2", "there is no metric fidelity.agreemnt"),
        ("test.acuracy < 0.8", "did you mean test.accuracy?"),
        ("robustness.asr > 0.5", "give --language"),
    ],
)
def test_a_gate_that_cannot_be_compared_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_metric(parse_gate(text), KNOWN)
    assert expected in str(caught.value)


def test_fidelity_without_a_teacher_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match="give --teacher"):
        check_metric(parse_gate("fidelity.any > 0.2"), ["test.accuracy"])
