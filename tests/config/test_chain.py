"""The rules of a chain by hand: sizes, layers, and when it ends."""

from __future__ import annotations

from itertools import pairwise

import pytest

from distill.config import Chain
from distill.config.chain import (
    is_dropped,
    is_link_name,
    link_layers,
    link_name,
    link_sizes,
    num_links,
    relative_change,
)


def test_links_that_are_chosen_halve_the_parameters_at_most() -> None:
    """⌈log₂(|θ_T| / |θ_S|)⌉: one link more as soon as it is not an exact power of two."""
    assert [num_links(teacher, 10) for teacher in (5, 10, 19, 20, 21, 40, 41, 80)] == [
        *(1, 1, 1, 1, 2, 2, 3, 3)
    ]
    sizes = (1000, *link_sizes(1000, 60, num_links(1000, 60)))
    assert all(after / before >= 0.5 for before, after in pairwise(sizes))


def test_sizes_and_layers_are_on_a_geometric_scale_that_ends_with_the_student() -> None:
    assert link_sizes(8000, 1000, 3) == pytest.approx((4000, 2000, 1000))
    assert link_sizes(8000, 1000, 1) == (1000,)
    # 12 · (2/12)^(1/3) = 6.60, 12 · (2/12)^(2/3) = 3.63
    assert link_layers(12, 2, 3) == (7, 4, 2)
    assert link_layers(4, 4, 2) == (4, 4)
    assert link_layers(0, 2, 3) == (2, 2, 2)  # a teacher whose layers are not known


def test_a_change_is_relative_to_the_link_before_and_positive_is_better() -> None:
    assert relative_change(0.8, 0.76) == pytest.approx(-0.05)
    assert relative_change(0.8, 0.84) == pytest.approx(0.05)
    assert relative_change(10.0, 11.0, prefers_low=True) == pytest.approx(-0.1)
    assert relative_change(10.0, 9.0, prefers_low=True) == pytest.approx(0.1)
    assert relative_change(0.0, 0.5) == 1.0 and relative_change(0.0, 0.0) == 0.0


@pytest.mark.parametrize(
    ("stop", "changes", "dropped"),
    [
        # Ours: the first link that loses more than ε; equal to ε is kept.
        ("loss", (-0.005, 0.02, -0.01, -0.02), 4),
        ("loss", (-0.02, 0.1), 1),
        ("loss", (0.0, -0.01), None),
        # The draft's: from link 2 on, whatever does not gain ε.
        ("gain", (-0.5, 0.005), 2),
        ("gain", (-0.5, 0.01, 0.009), 3),
        ("gain", (-0.5,), None),
    ],
)
def test_a_chain_ends_at_the_first_link_that_is_dropped(
    stop: str, changes: tuple[float, ...], dropped: int | None
) -> None:
    found = [
        link
        for link, change in enumerate(changes, 1)
        if is_dropped(stop, 0.01, link, change)  # type: ignore[arg-type]
    ]
    assert (found[0] if found else None) == dropped


def test_names_of_links() -> None:
    assert link_name(2) == "link 2" and is_link_name("Link 12") and not is_link_name("link a")


def test_the_default_chain_drops_a_link_that_loses_more_than_one_percent() -> None:
    chain = Chain()
    assert (chain.links, chain.stop, chain.epsilon) == ("auto", "loss", 0.01)
