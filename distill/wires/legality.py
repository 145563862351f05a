"""Which wires, aggregations and objectives go together.

Which objectives and temperatures a wire serves is its own :meth:`WireFormat.check`; how the outputs
of several teachers can be combined is here.
"""

from __future__ import annotations

from collections.abc import Sequence

from distill.aggregation import Aggregation, TrainedWeights
from distill.errors import ConfigError
from distill.objectives import Objective
from distill.wires.base import WireFormat


def check_mixing(
    aggregation: Aggregation, wires: Sequence[WireFormat], objective: Objective
) -> None:
    """Raise ConfigError for an aggregation that these language models and wires cannot serve."""
    _check_divergences(aggregation)
    inexact = " and ".join(sorted({wire.type for wire in wires if not wire.is_exact}))
    if inexact:
        many = " and " in inexact
        reason = f"the wire{'s' * many} {inexact} {'do' if many else 'does'} not send all of them"
    elif not objective.mixes:
        reason = (
            f"objective.type {objective.type!r} compares the student with each teacher separately"
        )
    else:
        return
    if isinstance(aggregation, TrainedWeights):
        raise ConfigError(
            f"aggregation.type {aggregation.type!r} needs each teacher's probability of the next "
            f"token, from all logits, but {reason}: use "
            + ("the wire hidden or dense for every teacher, or " if inexact else "")
            + "mean, weights, oracle or single"
        )
    if aggregation.sees_logits:
        raise ConfigError(
            f"aggregation.type {aggregation.type!r} compares the logits of all teachers, "
            f"but {reason}: use mean, weights, oracle or single"
            + (", or the wire hidden or dense for every teacher" if inexact else "")
        )
    # Teachers with other vocabularies are not combined at all.
    if inexact and aggregation.num_queried(len(wires)) > 1 and aggregation.mix == "logits":
        raise ConfigError(
            f"aggregation.mix: logits averages the teachers' logits, but {reason}: set "
            "aggregation.mix: probabilities, or use the wire hidden or dense for every teacher"
        )


def _check_divergences(aggregation: Aggregation) -> None:
    """``aggregation.mix: divergences`` compares the student with each teacher alone."""
    if aggregation.mix == "divergences" and aggregation.sees_logits:
        raise ConfigError(
            f"aggregation.type {aggregation.type!r} compares the logits of all teachers, "
            "but aggregation.mix: divergences compares the student with each teacher alone: use "
            "mean, weights, oracle or single, or another aggregation.mix"
        )
    if aggregation.mix == "divergences" and isinstance(aggregation, TrainedWeights):
        raise ConfigError(
            f"aggregation.type {aggregation.type!r} is trained on the likelihood under all "
            "teachers, but aggregation.mix divergences compares the student with each teacher "
            "separately: set aggregation.mix: probabilities"
        )
