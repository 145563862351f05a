"""What attention and the learned router share: weights of a network that is trained with the
student, by the likelihood of the labels under the ensemble of teachers.

    L_R = −log Σ_k w_k p_k(y), at temperature 1

This is the likelihood of a mixture of experts (Jacobs et al. 1991, "Adaptive mixtures of local
experts") whose experts are fixed: a teacher that gives the labels a higher probability gets a
higher weight. L_R trains nothing but the network: h, the student's hidden states, enters without
gradient, and the distillation loss takes the weights as constants.

Shape suffixes: K teachers, N positions, S sequences, H the student's hidden states, B rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.aggregation.mixture import Mixture, Space, Weights
from distill.records import TeacherAnswers

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    from distill.lazy_torch import torch


class TrainedWeights(Mixture):
    """Base of the aggregations with a trained network; :meth:`build` makes it, with one score for
    each row of h and teacher: [N, H] → [N, K]."""

    mix: Space = "probabilities"
    """What is averaged over the teachers for the student. The network's own loss always uses
    ``probabilities``."""

    @property
    def pools(self) -> bool:
        """Language models: whether all positions of a sequence have the same weights."""
        return False

    @property
    def beta(self) -> float:
        """Weight of the entropy of the weights; see :class:`Attention`."""
        return 0.0

    def log_weights(self, module: nn.Module, hidden_NH: Tensor, sequences_N: Tensor) -> Tensor:
        """float32 [K, N]. ``sequences_N``: the packed sequence that each position belongs to."""
        dtype = next(module.parameters()).dtype  # bf16 under DeepSpeed's bf16
        seen_XH = hidden_NH.detach().float()
        place_N = None
        if self.pools:
            found_S, place_N = sequences_N.unique(return_inverse=True)
            sums_SH = seen_XH.new_zeros(len(found_S), seen_XH.shape[1])
            sums_SH.index_add_(0, place_N, seen_XH)
            seen_XH = sums_SH / place_N.bincount(minlength=len(found_S))[:, None]
        log_weights_KX = module(seen_XH.to(dtype)).float().log_softmax(dim=1).T
        return log_weights_KX if place_N is None else log_weights_KX[:, place_N]

    def weigh(
        self, answers: TeacherAnswers, features_BH: Tensor | None, module: nn.Module | None
    ) -> Weights:
        """Of classifiers: each row is a sample and a position."""
        assert features_BH is not None and module is not None
        each_B = torch.arange(len(features_BH), device=features_BH.device)
        log_weights_KB = self.log_weights(module, features_BH, each_B)
        kept_KB = log_weights_KB.masked_fill(~answers.queried_KB, NEVER).log_softmax(dim=0)
        weights_KB = kept_KB.detach().exp()
        return Weights(weights_KB, kept_KB)


NEVER = -1e30
"""Log weight of a teacher that was not queried: a weight of 0, without NaN in a gradient."""
