"""What all aggregations share: a weight for every teacher and row, and the space they mix in.

Shape suffixes: K teachers, B rows, V classes or vocabulary, H student features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple

from distill.objectives.log_softmax import log_softmax_at
from distill.records import RoutingInputs, Target, TeacherAnswers
from distill.variant import Only, Variant

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    from distill.lazy_torch import torch

Space = Literal["logits", "probabilities", "divergences"]


class Weights(NamedTuple):
    """``weights_KB`` sum to 1 over teachers. ``log_weights_KB``: the same with a gradient, where a
    network is trained that makes them (aggregation/trained.py)."""

    weights_KB: Tensor
    log_weights_KB: Tensor | None = None


class Mixture(Variant):
    """An aggregation with nothing to train; ``weigh`` decides, :func:`mix` mixes."""

    sees_logits: ClassVar[bool] = False
    """Whether the weights depend on the teachers' outputs, not only on which were queried."""
    version: ClassVar[int] = 1
    """Of the trained network and its loss: a checkpoint of another version is not resumed."""
    mix: Annotated[
        Space, Only("language_model", ("divergences",), "use probabilities or logits")
    ] = "logits"
    """``logits``: log_softmax(Σ w_k z_k / T). ``probabilities``: log Σ w_k softmax(z_k / T).
    ``divergences`` (language models): outputs are not combined, L = Σ w_k D(p_k, p_S); for a
    teacher with M forwards, D is the mean over them. If an aggregate is reported, it is that of
    probabilities."""

    def needs_router(self) -> bool:
        return False

    def num_queried(self, num_teachers: int) -> int:
        """How many of the teachers are queried for each row."""
        return num_teachers

    def choose(self, inputs: RoutingInputs) -> Tensor:
        """Which teachers each row is routed to: bool [K, B]. Only these are queried."""
        return torch.ones(len(inputs.names), len(inputs.domain_teacher_B), dtype=torch.bool)

    def querying_all(self) -> Mixture:
        """One that queries every teacher for every row, and the router if this one does."""
        return self

    def build(self, num_teachers: int, num_classes: int, num_features: int) -> nn.Module | None:
        """The trainable part, or None. Trained, reduced and checkpointed with the student."""
        return None

    def without_labels(self) -> Mixture:
        """What is used where no row that the student is trained on has a label."""
        return self

    def check(self, teacher_names: list[str]) -> None:
        """Raise ConfigError where this aggregation cannot serve these teachers."""

    def weigh(
        self, answers: TeacherAnswers, features_BH: Tensor | None, module: nn.Module | None
    ) -> Weights:
        raise NotImplementedError

    def target(self, answers: TeacherAnswers, weights_KB: Tensor, temperature: float) -> Target:
        return mix(answers.logits_KBV, weights_KB, temperature, self.mix)


def only_queried(weights_KB: Tensor, queried_KB: Tensor) -> Tensor:
    """Weights with the teachers that were not queried at 0, summing to 1 over the others."""
    kept_KB = torch.where(queried_KB, weights_KB, torch.zeros_like(weights_KB))
    return kept_KB / kept_KB.sum(0, keepdim=True)


def mix(logits_KBV: Tensor, weights_KB: Tensor, temperature: float, space: Space) -> Target:
    """The aggregate's log-probabilities at ``temperature``."""
    if len(logits_KBV) == 1 and not weights_KB.requires_grad:  # 1, and no copies of [B, V]
        return Target(log_softmax_at(logits_KBV[0], temperature), weights_KB)
    if space == "logits":
        # Not einsum: under autocast it would round the teachers' logits to bf16.
        mixed_BV = weighted_logits(weights_KB, logits_KBV).sum(0)
        logp_BV = log_softmax_at(mixed_BV, temperature)
    else:
        logp_KBV = log_softmax_at(logits_KBV, temperature)
        # log-sum-exp: a confident teacher's tail underflows when probabilities are added.
        logp_BV = torch.logsumexp(logp_KBV + log_weights(weights_KB)[..., None], dim=0)
    return Target(logp_BV, weights_KB)


def weighted_logits(weights_KB: Tensor, logits_KBV: Tensor) -> Tensor:
    """w_k · z_k; 0 of a teacher with weight 0, also where it rules out a class: 0 · −∞ is NaN."""
    weights_KB1 = weights_KB[..., None]
    return (weights_KB1 * logits_KBV).masked_fill_(weights_KB1 == 0, 0.0)


def log_weights(weights_KB: Tensor) -> Tensor:
    """log, −∞ at 0 with a gradient of 0: log's own is infinite there, and ∞ · 0 is NaN."""
    tiny = torch.finfo(weights_KB.dtype).tiny
    return torch.where(weights_KB > 0, weights_KB.clamp(min=tiny).log(), -torch.inf)
