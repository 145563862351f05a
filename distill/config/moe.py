"""How a mixture-of-experts teacher uses its experts (Every Expert Matters, arXiv 2502.12947).

``H`` are a router's logits over the N experts of its layer.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from distill.errors import ConfigError
from distill.variant import Variant


class _Routing(Variant):
    changes: ClassVar[bool] = False
    """Whether the same rows are answered otherwise from step to step: then nothing is kept."""
    num_passes: ClassVar[int] = 1
    """Answers about each position."""

    def num_chosen(self, own: int, num_experts: int) -> int:
        """K: experts of each token and layer, of a model that itself asks ``own``."""
        return num_experts

    def check(self, key: str, num_experts: int | None) -> None:
        """Raise ConfigError, naming ``key``, unless a model of so many experts (None: a dense one)
        can be asked like this."""
        if num_experts is None:
            raise ConfigError(
                f"{key}.moe.type {self.type} chooses among the experts of a mixture, and this "
                "teacher's layers have none: remove moe, or give a mixture-of-experts teacher"
            )

    def describe(self, own: int, num_experts: int) -> str:
        """For ``distill check``."""
        raise NotImplementedError


class OwnRouting(_Routing):
    """The unchanged model: its own router, its own k. Also for dense models."""

    type: Literal["own"] = "own"

    def num_chosen(self, own: int, num_experts: int) -> int:
        return own

    def check(self, key: str, num_experts: int | None) -> None:
        pass

    def describe(self, own: int, num_experts: int) -> str:
        return f"{own} of {num_experts} experts per token, selected by its router"


class AllExperts(_Routing):
    """All N experts, weighted by softmax(H) [ALL]."""

    tasks: ClassVar[tuple[str, ...]] = ("language_model",)
    type: Literal["all"] = "all"

    def describe(self, own: int, num_experts: int) -> str:
        return f"all {num_experts} experts per token (its router selects {own})"


class KnowledgeAugmentation(_Routing):
    """M forwards, each with a new draw of experts; the loss is the mean of the M divergences [KA].

    In each forward, for each token and layer: with probability λ, K experts drawn without
    replacement by softmax(H), else the K most probable; weighted by the softmax over the selected.
    [ours] In families that do not renormalise the weights of their selected experts (OLMoE, some
    Qwen) they are not renormalised, since the outputs of their layers would otherwise be larger
    than in training. ``aggregation.mix`` must be ``divergences``.
    """

    changes: ClassVar[bool] = True
    tasks: ClassVar[tuple[str, ...]] = ("language_model",)
    type: Literal["ka"] = "ka"
    passes: int = Field(default=2, ge=1)
    """M: number of forwards."""
    explore: float = Field(default=0.05, ge=0, le=1)
    """λ: probability that the experts of a token are drawn at random."""
    experts: int | None = Field(default=None, ge=1)
    """K: experts per token; null: N − 1."""
    noise: bool = False
    """Add the noise of the noisy gate to H; for a gate that was never trained its standard
    deviation is softplus(0) + 0.01 ≈ 0.70 [ours: off, since the gate uses noise only in
    training]."""

    @property
    def num_passes(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.passes

    def num_chosen(self, own: int, num_experts: int) -> int:
        return num_experts - 1 if self.experts is None else self.experts

    def check(self, key: str, num_experts: int | None) -> None:
        super().check(key, num_experts)
        assert num_experts is not None
        if not 1 <= self.num_chosen(0, num_experts) <= num_experts:
            given = "null, one fewer than all" if self.experts is None else self.experts
            raise ConfigError(
                f"{key}.moe.experts must lie between 1 and the {num_experts} experts of a layer, "
                f"got {given}"
            )

    def describe(self, own: int, num_experts: int) -> str:
        chosen = self.num_chosen(own, num_experts)
        return (
            f"{self.passes} forwards with {chosen} of {num_experts} experts per token, drawn at "
            f"random for {self.explore:.0%} of the tokens (its router selects {own})"
        )


class StudentAwareRouter(_Routing):
    """All N experts, with gates that are trained on the student's text [SAR].

    Before each forward, the gates (only W_g and W_n of all layers) take a step on KL(p_T ‖ p_S) + β
    · (CV²(importance) + CV²(load)), with the noisy gate H = W_g x + ε · (softplus(W_n x) + 0.01), ε
    ~ N(0, 1); the forward itself has no noise. W_n starts at 0.
    """

    changes: ClassVar[bool] = True
    tasks: ClassVar[tuple[str, ...]] = ("language_model",)
    type: Literal["sar"] = "sar"
    balance: float = Field(default=0.01, ge=0)
    """β: weight of the load-balancing term."""
    lr: float = Field(default=1e-6, ge=0)
    """Learning rate of the gates' AdamW; 0 freezes them, which is ``all``."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay of the gates' AdamW."""
    noise: bool = True
    """Use the noise ε; false: H = W_g x also in the steps of the gates."""

    def describe(self, own: int, num_experts: int) -> str:
        return (
            f"all {num_experts} experts per token, weighted by trained gates (its router selects "
            f"{own})"
        )


MoE = Annotated[
    OwnRouting | AllExperts | KnowledgeAugmentation | StudentAwareRouter,
    Field(discriminator="type"),
]
