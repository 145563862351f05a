"""The gates of any mixture-of-experts model, wrapped so that they use the experts requested.

In transformers 5 a layer's gate is a module that returns (logits, weights, chosen experts), and its
experts take any number of chosen ones. So a gate is wrapped, its logits are its own, and no code of
a model is repeated. What families do differently, how logits become weights, is found out on a
probe and must then be bit-identical; a family of another kind (sigmoids, groups) is refused.

Shape suffixes: n tokens of a forward, E experts, K chosen, L layers with a gate, H hidden, M
passes, B rows, T tokens of a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, softplus

from distill.config.moe import KnowledgeAugmentation, MoE, OwnRouting
from distill.errors import ModelError
from distill.models.decoder import base_of
from distill.models.expert_gates import gates_of
from distill.moe import draws
from distill.records import ExpertUsage, GateState

Rule = Literal["kept", "renormalised", "of_chosen"]
"""Weights of the chosen: softmax(H) as it is, or so that they sum to 1; or softmax(H of the
chosen), which is the latter in other bits."""
RULES: tuple[Rule, ...] = ("kept", "renormalised", "of_chosen")
PROBE_TOKENS = 24
EXPLORES, CHOOSES, NOISES = 0, 1, 2
"""What a layer's random numbers are for."""


@dataclass
class _Forward:
    """What the gates do in the forward under way."""

    moe: MoE = field(default_factory=OwnRouting)
    seeds_n: Tensor | None = None
    is_noisy: bool = False
    counted_n: Tensor | None = None  # bool: tokens that statistics are about; None: none are kept
    # Read when the forward is over: a GPU is not waited for at each layer.
    silent_L: list[Tensor] = field(default_factory=list)
    chosen_LE: list[Tensor] = field(default_factory=list)
    importance_LE: list[Tensor] = field(default_factory=list)
    """Σ over the counted tokens of the weights, differentiable."""


class Gate(nn.Module):
    """A model's own gate, and the experts that replace its choice."""

    def __init__(self, own: nn.Module, layer: int, rule: Rule, routing: ExpertRouting) -> None:
        super().__init__()
        self.routing = routing
        self.own: Any = own
        self.noise_weight = nn.Parameter(torch.zeros_like(self.own.weight), requires_grad=False)
        self.layer = layer
        self.rule: Rule = rule
        self.under_way = routing.under_way

    @property
    def num_experts(self) -> int:
        return self.own.weight.shape[0]

    def forward(self, hidden: Tensor, *given: Any, **named: Any) -> tuple[Tensor, Tensor, Tensor]:
        logits_nE, weights_nK, chosen_nK = self.own(hidden, *given, **named)
        own_nK, now = chosen_nK, self.under_way
        if not isinstance(now.moe, OwnRouting):
            dtype = weights_nK.dtype
            noisy_nE = self._with_noise(logits_nE, hidden) if now.is_noisy else logits_nE
            chosen_nK = self._chosen(noisy_nE)
            weights_nK = weights_of(self.rule, noisy_nE, chosen_nK).to(dtype)
        if now.counted_n is not None:
            self._note(now.counted_n, logits_nE, own_nK, chosen_nK, weights_nK)
        return logits_nE, weights_nK, chosen_nK

    def _seeds(self, purpose: int) -> Tensor:
        seeds_n = self.under_way.seeds_n
        assert seeds_n is not None
        return draws.mixed(draws.mixed(seeds_n + self.layer) + purpose)

    def _with_noise(self, logits_nE: Tensor, hidden: Tensor) -> Tensor:
        hidden_nH = hidden.reshape(-1, hidden.shape[-1])
        spread_nE = softplus(linear(hidden_nH, self.noise_weight)) + 0.01
        noise_nE = draws.normals(self._seeds(NOISES), self.num_experts)
        return logits_nE + noise_nE.to(logits_nE.dtype) * spread_nE

    def _chosen(self, logits_nE: Tensor) -> Tensor:
        moe = self.under_way.moe
        num = moe.num_chosen(self.own.top_k, self.num_experts)
        first_nK = likeliest(self.rule, logits_nE, num)
        if not isinstance(moe, KnowledgeAugmentation) or moe.explore == 0:
            return first_nK
        explores_n1 = draws.uniforms(self._seeds(EXPLORES), 1) < moe.explore
        uniforms_nE = draws.uniforms(self._seeds(CHOOSES), self.num_experts)
        drawn_nK = draws.without_replacement(logits_nE, uniforms_nE, num)
        return torch.where(explores_n1, drawn_nK, first_nK)

    def _note(
        self,
        counted_n: Tensor,
        logits_nE: Tensor,
        own_nK: Tensor,
        chosen_nK: Tensor,
        weights_nK: Tensor,
    ) -> None:
        now, num = self.under_way, self.num_experts
        with torch.no_grad():
            own_mass_n = logits_nE.float().softmax(1).gather(1, own_nK).sum(1)
            now.silent_L.append(((1 - own_mass_n) * counted_n).double().sum())
            requested_nK = counted_n[:, None].expand_as(chosen_nK).long()
            chosen_E = torch.zeros(num, dtype=torch.long, device=chosen_nK.device)
            now.chosen_LE.append(
                chosen_E.scatter_add(0, chosen_nK.flatten(), requested_nK.flatten())
            )
        if torch.is_grad_enabled():
            spread_nE = torch.zeros_like(logits_nE, dtype=torch.float32)
            spread_nE = spread_nE.scatter(1, chosen_nK, weights_nK.float())
            now.importance_LE.append((spread_nE * counted_n[:, None]).sum(0))


def likeliest(rule: Rule, logits_nE: Tensor, num: int) -> Tensor:
    """As the family looks for them: of equal probabilities, logits may differ."""
    ranked_nE = logits_nE if rule == "of_chosen" else logits_nE.float().softmax(1)
    return ranked_nE.topk(num, dim=1).indices


def weights_of(rule: Rule, logits_nE: Tensor, chosen_nK: Tensor) -> Tensor:
    if rule == "of_chosen":
        return logits_nE.gather(1, chosen_nK).softmax(1)
    weights_nK = logits_nE.float().softmax(1).gather(1, chosen_nK)
    return weights_nK if rule == "kept" else weights_nK / weights_nK.sum(1, keepdim=True)


class ExpertRouting:
    """A model's gates, wrapped. The arguments of :meth:`asking` hold for the forwards within it."""

    def __init__(self, model: nn.Module) -> None:
        """Raises ModelError for a dense model, and for gates of an unknown kind."""
        found = gates_of(model)
        if not found:
            raise ModelError(
                f"a {base_of(model).config.model_type} teacher is dense, it has no experts: remove "
                "moe, or give a mixture-of-experts teacher"
            )
        hidden_BTH, rule = _probed(model, found)
        self.under_way = _Forward()
        self.gates: list[Gate] = []
        for layer, (parent, name) in enumerate(found):
            gate = Gate(getattr(parent, name), layer, rule, self)
            setattr(parent, name, gate)
            self.gates.append(gate)
        self.model = model
        own = KnowledgeAugmentation(passes=1, explore=0, experts=self.own)
        with self.asking(own):
            again_BTH = _last_hidden(model)
        assert torch.equal(again_BTH, hidden_BTH), "a wrapped model is the model"
        self.first = self._taken()
        """The model's own gates."""

    @classmethod
    def of(cls, model: nn.Module) -> ExpertRouting:
        """Its gates, wrapped once for all who ask it: adapters share their base's."""
        for part in base_of(model).modules():
            if isinstance(part, Gate):
                return part.routing
        return cls(model)

    @property
    def num_experts(self) -> int:
        return self.gates[0].num_experts

    @property
    def own(self) -> int:
        return self.gates[0].own.top_k

    @contextmanager
    def asking(
        self,
        moe: MoE,
        seeds_MBT: Tensor | None = None,
        counted_BT: Tensor | None = None,
        is_noisy: bool = False,
    ) -> Iterator[_Forward]:
        """Forwards within are of M copies of the rows, one pass after the other, and are asked as
        ``moe`` names. ``counted_BT``: bool, the tokens that statistics are about."""
        now = self.under_way
        before = vars(now).copy()
        device = self.gates[0].own.weight.device
        seeds_n = None if seeds_MBT is None else seeds_MBT.flatten().to(device)
        counted_n = None
        if counted_BT is not None:
            counted_n = counted_BT.to(device).flatten().repeat(moe.num_passes)
        fresh = _Forward(moe, seeds_n, is_noisy, counted_n)
        vars(now).update(vars(fresh))
        try:
            yield now
        finally:
            vars(now).update(before)

    @contextmanager
    def having(self, state: GateState | None) -> Iterator[None]:
        """Other gates within; None: the model's own. Afterwards it has its own again, so that no
        request depends on another. Raises TeacherError for a state of other gates."""
        if state is None:
            yield
            return
        self._put(state)
        try:
            yield
        finally:
            self._put(self.first)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Of all gates, in their order."""
        return [parameter for gate in self.gates for parameter in gate.parameters()]

    @property
    def shapes(self) -> str:
        text = ";".join(
            f"{name}{list(p.shape)}" for gate in self.gates for name, p in gate.named_parameters()
        )
        return blake2b(text.encode(), digest_size=8).hexdigest()

    @property
    def num_values(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters)

    @torch.no_grad()
    def _taken(self) -> GateState:
        flat = [parameter.flatten().float().cpu() for parameter in self.parameters]
        return GateState(0, torch.cat(flat).numpy(), self.shapes)

    @torch.no_grad()
    def _put(self, state: GateState) -> None:
        """In bfloat16 the values are rounded: the state that is trained stays in float32."""
        state.check(self.shapes, self.num_values)
        values = torch.from_numpy(np.array(state.values))
        sizes = [parameter.numel() for parameter in self.parameters]
        for parameter, part in zip(self.parameters, values.split(sizes), strict=True):
            parameter.copy_(part.view_as(parameter))


def usage_of(forward: Any) -> ExpertUsage:
    """Of a forward whose tokens were counted."""
    return ExpertUsage(
        int(forward.counted_n.sum()),
        torch.stack(forward.silent_L).cpu().numpy(),
        torch.stack(forward.chosen_LE).cpu().numpy(),
    )


def _last_hidden(model: nn.Module) -> Tensor:
    base = base_of(model)
    embeddings: Any = base.get_input_embeddings()
    ids_BT = (torch.arange(PROBE_TOKENS, device=base.device) * 7 + 1) % embeddings.num_embeddings
    return base(input_ids=ids_BT[None], use_cache=False).last_hidden_state


@torch.no_grad()
def _probed(model: nn.Module, found: list[tuple[nn.Module, str]]) -> tuple[Tensor, Rule]:
    """A probe's hidden states [1, T, H], and the rule that gives every gate's own answers."""
    answers: list[tuple[int, Any]] = []
    hooks = []
    for parent, name in found:
        gate: Any = getattr(parent, name)

        def note(gate: Any, _: Any, answer: Any) -> None:
            answers.append((gate.top_k, answer))

        hooks.append(gate.register_forward_hook(note))
    try:
        hidden_BTH = _last_hidden(model)
    finally:
        for hook in hooks:
            hook.remove()
    for rule in RULES:
        if len(answers) == len(found) and all(_obeys(rule, k, output) for k, output in answers):
            return hidden_BTH, rule
    raise ModelError(
        f"the router of a {base_of(model).config.model_type} model computes the weights of its "
        "experts in an unsupported way (not by a softmax of its logits): remove moe, so that its "
        "own routing is used"
    )


def _obeys(rule: Rule, own: int, answer: Any) -> bool:
    if not isinstance(answer, tuple) or len(answer) != 3 or answer[0].ndim != 2:
        return False
    logits_nE, weights_nK, chosen_nK = answer
    if weights_nK.shape != chosen_nK.shape or chosen_nK.shape[1] != own:
        return False
    ours_nK = likeliest(rule, logits_nE, own)
    weights = weights_of(rule, logits_nE, ours_nK).to(weights_nK.dtype)
    return torch.equal(ours_nK, chosen_nK) and torch.equal(weights, weights_nK)
