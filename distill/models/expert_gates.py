"""The gates of mixture-of-experts models: where they are, and how many experts they have."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from distill.models.decoder import base_of


class GateInfo(NamedTuple):
    """What a model's config.json tells of its mixtures."""

    num_experts: int
    own: int
    """Experts that its router asks about a token."""


def gates_of(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """Modules with experts and a gate, and the gate's name there; works on meta."""
    return [
        (parent, name)
        for parent in base_of(model).modules()
        for name in ("gate", "router")
        if hasattr(parent, "experts") and _is_gate(getattr(parent, name, None))
    ]


def _is_gate(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    is_chosen = isinstance(getattr(module, "top_k", None), int)
    return isinstance(module, nn.Module) and is_chosen and getattr(weight, "ndim", 0) == 2


def gate_info(model: nn.Module) -> GateInfo | None:
    """None of a dense model."""
    for parent, name in gates_of(model):
        gate: Any = getattr(parent, name)
        return GateInfo(gate.weight.shape[0], gate.top_k)
    return None
