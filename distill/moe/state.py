"""The gates of a model as one array: what is trained, sent and checkpointed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distill.errors import TeacherError


@dataclass(frozen=True)
class GateState:
    """W_g (with a bias, if there is one) and W_n of every layer, in their order."""

    version: int
    """0: as the model's folder has them. Whoever trains them counts."""
    values: np.ndarray  # float32 [G]
    shapes: str  # fingerprint of the gates that the values are of

    def check(self, shapes: str, num_values: int) -> None:
        """Raise TeacherError unless it is a state of these gates."""
        if self.shapes != shapes or self.values.shape != (num_values,):
            raise TeacherError(
                f"a gate of another shape: version {self.version} has {self.values.size} values of "
                f"the gates {self.shapes}, this teacher's gates are {shapes} with {num_values}: "
                "train gates and ask them at one and the same model"
            )


@dataclass(frozen=True)
class GateGradient:
    """A request's share of the gradient of L_R; shares add over micro-batches and ranks.

    L_R = (Σ ``kl_sum`` + Σ ``balance_sum``) / Σ ``num_positions``; likewise its gradient.
    """

    request_id: str
    values: np.ndarray  # float32 [G]
    num_positions: int
    kl_sum: float  # nats: Σ over positions of KL(p_T ‖ p_S)
    balance_sum: float  # Σ over forwards of positions · β · mean over layers of CV²(importance)
    compute_s: float = 0.0


@dataclass(frozen=True)
class ExpertUsage:
    """Who was asked, over the positions of an answer and its passes; adds up.

    L layers with a gate, E experts of a layer.
    """

    METRICS: ClassVar = ("silent_mass_rate", "busiest_expert_rate", "idlest_expert_rate")

    num_tokens: int
    silent_mass_L: np.ndarray  # float64: Σ over tokens of 1 − Σ of softmax(H) over the own top-k
    tokens_LE: np.ndarray  # int64: tokens that an expert was asked about

    def __add__(self, other: ExpertUsage) -> ExpertUsage:
        return ExpertUsage(
            self.num_tokens + other.num_tokens,
            self.silent_mass_L + other.silent_mass_L,
            self.tokens_LE + other.tokens_LE,
        )

    def metrics(self) -> dict[str, float]:
        """``silent_mass_rate``: mean mass of the experts that the model's own k leaves out;
        ``busiest_expert_rate``, ``idlest_expert_rate``: the largest and smallest share of tokens
        that an expert of any layer received."""
        shares_LE = self.tokens_LE / max(1, self.num_tokens)
        return {
            "silent_mass_rate": float(self.silent_mass_L.mean()) / max(1, self.num_tokens),
            "busiest_expert_rate": float(shares_LE.max()),
            "idlest_expert_rate": float(shares_LE.min()),
        }
