"""What is special to single objectives; test_objective_values.py tests all of them."""

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from distill.objectives import (
    Comparative,
    ForwardKL,
    GeneralisedJSD,
    Objective,
    TotalVariation,
    UniversalLogits,
    WeightedSum,
)
from distill.records import Target


def test_beta_outside_its_range_names_key_and_value() -> None:
    for beta in (0.0, 1.0, 1.4):
        with pytest.raises(ValueError, match="beta"):
            GeneralisedJSD(beta=beta)


def test_uld_knows_no_ids_and_pads_the_narrower_vocabulary() -> None:
    z_S = 2 * torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    permuted = Target(torch.log_softmax(z_S[:, [2, 0, 3, 1]] / 2, -1), torch.ones(1, 5))
    zeros = torch.zeros(5, dtype=torch.double)
    torch.testing.assert_close(UniversalLogits()(z_S, permuted, 2.0), zeros)
    # Two tokens of the teacher's that the student cannot have: 0.2 and 0.1 against nothing.
    p_T = torch.tensor([[0.1, 0.4, 0.2, 0.3]], dtype=torch.double)
    p_S = torch.tensor([[0.45, 0.55]], dtype=torch.double)
    target = Target(p_T.log(), torch.ones(1, 1))
    expected = torch.tensor([0.15 + 0.15 + 0.2 + 0.1], dtype=torch.double)
    torch.testing.assert_close(UniversalLogits()(p_S.log(), target, 1.0), expected)


def test_an_objective_is_a_section_or_a_list_of_sections() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(Objective)
    assert adapter.validate_python({"type": "jsd", "beta": 0.3}) == GeneralisedJSD(beta=0.3)
    several = [{"type": "forward_kl"}, {"type": "total_variation", "weight": 2}]
    both = WeightedSum((ForwardKL(), TotalVariation(weight=2)))
    assert adapter.validate_python(several) == adapter.validate_python(tuple(several)) == both
    assert adapter.validate_python(both) == both
    # An error of an entry names this entry alone.
    with pytest.raises(ValidationError) as refused:
        adapter.validate_python([{"type": "forward_kl"}, {"type": "jsd", "beta": 2}])
    (error,) = refused.value.errors()
    assert error["loc"] == ("list", 1, "jsd", "beta")
    with pytest.raises(ValidationError) as refused:
        adapter.validate_python({"type": "jsd", "beta": 2})
    (error,) = refused.value.errors()
    assert error["loc"] == ("section", "jsd", "beta")


def test_two_rows_are_one_pair_for_comparative() -> None:
    """‖d_1 − d_2‖² of the centred differences: (2, −2) and (0, 0), so 8."""
    z_T, z_S = torch.tensor([[1.0, 3.0], [0.0, 5.0]]), torch.tensor([[5.0, 3.0], [1.0, 6.0]])
    target = Target(torch.log_softmax(z_T, -1), torch.ones(1, 2))
    torch.testing.assert_close(Comparative()(z_S, target, 1.0).mean(), torch.tensor(8.0))
