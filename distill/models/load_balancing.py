"""The load-balancing loss of a mixture of experts that is trained.

Without it nothing keeps a router from sending ever more tokens to ever fewer experts. Equations 4
to 6 of Fedus et al. 2021 (Switch Transformer, arXiv 2101.03961), over all layers, as the model's
own family computes it in transformers.

Shape suffixes: B rows, T tokens, E experts.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distill.errors import ModelError
from distill.models.decoder import plain

_PARAMETERS = ("gate_logits", "num_experts", "top_k", "attention_mask")


@dataclass(frozen=True)
class LoadBalancing:
    """num_experts · Σ_e f_e · P_e: f_e the share of tokens that expert e is given, P_e its mean
    probability. It is top_k where all experts get equally many."""

    coefficient: float
    """``router_aux_loss_coef`` of the model's config.json: what the loss is multiplied with."""
    num_experts: int
    top_k: int
    function: Callable[..., Any]

    @classmethod
    def of(cls, student: nn.Module) -> LoadBalancing | None:
        """None of a dense model, and where the coefficient is 0.

        Raises ModelError for a family whose loss is computed from something else.
        """
        model: Any = plain(student)
        coefficient = getattr(model, "router_aux_loss_coef", None) or 0.0
        if coefficient == 0:
            return None
        function = getattr(sys.modules[type(model).__module__], "load_balancing_loss_func", None)
        if function is None or tuple(inspect.signature(function).parameters) != _PARAMETERS:
            raise ModelError(
                f"the load-balancing loss of a {model.config.model_type} model cannot be computed, "
                f"and its router_aux_loss_coef is {coefficient:g}: set it to 0 in config.json to "
                "train without this loss, or use another student"
            )
        num_experts, top_k = model.num_experts, model.num_experts_per_tok
        return cls(float(coefficient), int(num_experts), int(top_k), function)

    def __call__(self, router_logits: tuple[Tensor, ...], is_real_BT: Tensor) -> Tensor:
        """A scalar, without the coefficient; of each layer the logits [B · T, E]. What is not real
        counts for nothing; where nothing is, the loss is 0."""
        if not bool(is_real_BT.any()):
            return torch.zeros((), device=is_real_BT.device)
        flat = tuple(logits.reshape(-1, logits.shape[-1]) for logits in router_logits)
        return self.function(flat, self.num_experts, self.top_k, is_real_BT)
