"""A language model as a teacher: a forward's rows in, its output at each position out.

Shape suffixes: B rows, T tokens, V vocabulary, H hidden, P positions of a forward, M passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from distill.config.moe import KnowledgeAugmentation, MoE, OwnRouting, StudentAwareRouter
from distill.errors import ModelError, TeacherAnswerError
from distill.models.decoder import base_of, has_linear_head, head_of
from distill.models.language import load_language_model
from distill.models.packed import keeps_apart
from distill.models.vocabulary import SharedTokens
from distill.moe.draws import token_seeds
from distill.moe.gates import ExpertRouting, usage_of
from distill.moe.gradient import Share, gate_gradient
from distill.objectives.log_softmax import LEFT_OUT
from distill.records import AnswerStats, ExpertUsage, GateState, Head
from distill.sampling.verification import Verification
from distill.teachers.backends.forwards import ForwardCounts, ForwardRows, position_seeds
from distill.teachers.requests import TeacherRequest
from distill.variant import Dtype
from distill.wires import WireFormat
from distill.wires.base import as_tensor

SAMPLE = 64
"""Positions of a forward that are measured: the logits of all would cost as much as the loss."""
MIN_SPREAD = 1e-3
"""Largest less smallest logit: of a trained model it is some units at least."""

ALL = "_gives_all_logits"
"""Attribute of a head whose left-out tokens keep their logits for now."""
POSITIONS = 512
"""Positions of a language model whose logits are encoded at once: [P, V] is never whole."""


class FrozenLanguageModel:
    """The model, and of a mixture of experts its gates; it keeps nothing between requests."""

    def __init__(
        self,
        model: Any,
        num_tokens: int,
        device: torch.device,
        dtype: Dtype,
        allow_pickle: bool,
        moe: MoE,
        shared: SharedTokens | None = None,
        kv_cache_bytes: float = math.inf,
    ) -> None:
        """``num_tokens``: columns that are answered about; ``shared``: which of them count, and how
        many more the model has. ``kv_cache_bytes``: see distill/sampling/verification.py."""
        if isinstance(model, str | Path):
            model = load_language_model(model, dtype, allow_pickle)
        self.model: Any = model.eval().to(device)
        self._base: Any = base_of(model)
        self._head = head_of(model)
        self._is_linear = has_linear_head(model)
        self._keeps_apart = keeps_apart(model)
        self._num_tokens = num_tokens
        self._shared = shared or SharedTokens(num_tokens, (), num_tokens)
        # For judging and writing too. A cap makes of it what no other token is below.
        self._left_out = torch.tensor(self._shared.left_out, dtype=torch.int64, device=device)
        if len(self._left_out):
            self._head.register_forward_hook(self._leave_out)
        self.judging = Verification(self.model, num_tokens, kv_cache_bytes)
        self._routing = _routing_of(model, moe)
        self.found = ForwardCounts()

    def move(self, device: torch.device) -> None:
        self.judging.forget()
        self.model.to(device)

    @property
    def is_reentrant(self) -> bool:
        """Whether forwards in several threads leave each other alone. Not of a model whose output
        is more than its head's, of a mixture of experts whose gates are set for a request, and of
        rotary embeddings that follow the length of the text."""
        follows_length = any(map(_follows_length, self.model.modules()))
        return self._is_linear and self._routing is None and not follows_length

    def check_linear(self) -> None:
        if not self._is_linear:
            kind = self.model.config.model_type
            raise ModelError(
                f"a {kind} teacher caps or scales its logits, so they cannot be recomputed from "
                "hidden states: use the wire dense or topk"
            )

    def head(self) -> Head:
        weight_VH = self._head.weight.detach()[: self._num_tokens].clone()
        bias_V = self._head.bias
        bias_V = None if bias_V is None else bias_V.detach()[: self._num_tokens].clone()
        if len(self._left_out):
            weight_VH[self._left_out] = 0
            bias_V = weight_VH.new_zeros(len(weight_VH)) if bias_V is None else bias_V
            bias_V[self._left_out] = LEFT_OUT
        return Head(weight_VH, bias_V)

    def first_gate(self) -> GateState:
        """As the folder has them."""
        return self._experts().first

    def payloads(
        self, block: ForwardRows, request: TeacherRequest, wire: WireFormat, moe: MoE
    ) -> Iterator[tuple[Tensor, ExpertUsage | None]]:
        """[M, P, H] or [M, P, V], and with the forward's first who was asked in it."""
        if wire.takes == "hidden":
            self.check_linear()
        payload_MPX, usage = self._forward(block, request, moe)
        self._measure(payload_MPX[0], block, request.request_id)
        if wire.takes == "hidden":
            yield payload_MPX, usage
            return
        if not self._is_linear:
            yield self._logits(payload_MPX), usage
            return
        for block_MPH in payload_MPX.split(max(1, POSITIONS // len(payload_MPX)), dim=1):
            yield self._head(block_MPH)[..., : self._num_tokens], usage
            usage = None

    def as_it_teaches(self, moe: MoE) -> AbstractContextManager[Any]:
        """Forwards that verify or generate use the experts of responses, for models that use
        the same ones in each; others (refused by distill check) use the model's own choice."""
        if moe.changes or isinstance(moe, OwnRouting):
            return nullcontext()
        return self._experts().asking(moe)

    def gate_gradient(
        self,
        block: ForwardRows,
        request: TeacherRequest,
        moe: StudentAwareRouter,
        student_PV: Tensor,
        temperature: float,
    ) -> Share:
        """Of one forward; see distill/moe/gradient.py."""
        routing = self._experts()
        self._check(block, request)
        assert block.targets_BT is not None
        with routing.having(request.gate):
            return gate_gradient(
                routing,
                moe,
                lambda: self._at_positions(block, 1)[0],
                self._logits,
                student_PV,
                self._seeds(block, request, 1),
                block.targets_BT,
                temperature,
                POSITIONS,
            )

    def _measure(self, payload_PX: Tensor, block: ForwardRows, request_id: str) -> None:
        """Add to ``stats``; raises TeacherAnswerError for logits that are broken or constant."""
        if len(payload_PX) == 0:
            return
        ids_BT, targets_BT = block.inputs["input_ids"], block.targets_BT
        assert targets_BT is not None
        seeds_P = position_seeds(block.rows_B, targets_BT.sum(1).cpu().numpy())
        at_N = torch.from_numpy(np.argsort(seeds_P, kind="stable")[:SAMPLE]).to(payload_PX.device)
        labels_N = ids_BT.roll(-1, dims=1)[targets_BT][at_N]
        logits_NV = self._own_logits(payload_PX[at_N])
        lse_N = logits_NV.logsumexp(1)
        nll_N = lse_N - logits_NV.gather(1, labels_N[:, None])[:, 0]
        outside_N = torch.zeros_like(lse_N)
        if self._shared.outside:
            outside = torch.tensor(self._shared.outside, device=logits_NV.device)
            outside_N = (logits_NV[:, outside].logsumexp(1) - lse_N).exp()
        spread = (logits_NV.amax(1) - logits_NV.amin(1)).amax()
        sums = torch.stack([nll_N.sum(), outside_N.sum(), spread]).tolist()
        if not all(map(math.isfinite, sums)):
            raise TeacherAnswerError(
                f"request {request_id}: the teacher's logits hold NaN or infinity: check its "
                "weights, or serve it in float32"
            )
        if sums[2] < MIN_SPREAD:
            raise TeacherAnswerError(
                f"request {request_id}: the teacher's logits are the same for all "
                f"{logits_NV.shape[1]} tokens of its vocabulary (they differ by less than "
                f"{MIN_SPREAD:g}), so its weights are probably damaged: copy its folder again, or "
                "use another teacher"
            )
        found = AnswerStats(len(at_N), sums[0], sums[1])
        stats = self.found.stats
        self.found.stats = found if stats is None else stats + found

    def _own_logits(self, payload_NX: Tensor) -> Tensor:
        """float32, of all its own tokens, also of those that are left out."""
        if not self._is_linear:
            return payload_NX[:, : self._shared.num_own].float()
        own = slice(0, self._shared.num_own)
        bias_V = None if self._head.bias is None else self._head.bias[own]
        return linear(payload_NX, self._head.weight[own], bias_V).float()

    def _leave_out(self, head: Any, inputs: Any, logits: Tensor) -> Tensor | None:
        return None if getattr(head, ALL, False) else self._without_left_out(logits)

    def _without_left_out(self, logits: Tensor) -> Tensor:
        return logits.index_fill(-1, self._left_out, LEFT_OUT)

    def _all_logits(self, inputs: dict[str, Any]) -> Tensor:
        """[B, T, V], also of the tokens that are left out, whose probability is measured."""
        setattr(self._head, ALL, True)  # one head may serve several adapters, each with its hook
        try:
            return self.model(**inputs, use_cache=False).logits
        finally:
            setattr(self._head, ALL, False)

    def _forward(
        self, block: ForwardRows, request: TeacherRequest, moe: MoE
    ) -> tuple[Tensor, ExpertUsage | None]:
        """All passes in one forward, of M copies of the rows: only what is before the first gate is
        the same in all, and of deep models that is little."""
        self._check(block, request)
        if isinstance(moe, OwnRouting) and self._routing is None:
            return self._at_positions(block, 1), None
        routing = self._experts()
        seeds_MBT = self._seeds(block, request, moe.num_passes)
        # A student-aware router has its noise in training alone.
        is_noisy = isinstance(moe, KnowledgeAugmentation) and moe.noise
        with (
            routing.having(request.gate),
            routing.asking(moe, seeds_MBT, block.targets_BT, is_noisy) as now,
        ):
            payload_MPX = self._at_positions(block, moe.num_passes)
            return payload_MPX, usage_of(now)

    def _at_positions(self, block: ForwardRows, num_passes: int) -> Tensor:
        """[M, P, H], or [M, P, V] of a model whose logits are more than its head's."""
        inputs, targets_BT = block.inputs, block.targets_BT
        assert targets_BT is not None
        # The student's padding may be a token that this model has no embedding of.
        last = self.model.get_input_embeddings().num_embeddings - 1
        inputs = inputs | {"input_ids": inputs["input_ids"].clamp(max=last)}
        if num_passes > 1:
            inputs = {name: values.repeat(num_passes, 1) for name, values in inputs.items()}
            targets_BT = targets_BT.repeat(num_passes, 1)
        if self._is_linear:
            payload_BTX = self._base(**inputs, use_cache=False).last_hidden_state
        else:
            payload_BTX = self._all_logits(inputs)
        return payload_BTX[targets_BT].unflatten(0, (num_passes, -1))

    def _logits(self, payload_PX: Tensor) -> Tensor:
        if self._is_linear:
            return self._head(payload_PX)[..., : self._num_tokens]
        logits_PV = payload_PX[..., : self._num_tokens]
        return self._without_left_out(logits_PV) if len(self._left_out) else logits_PV

    def _seeds(self, block: ForwardRows, request: TeacherRequest, num_passes: int) -> Tensor:
        return token_seeds(request.seed, num_passes, block.rows_B, request.num_tokens)

    def _check(self, block: ForwardRows, request: TeacherRequest) -> None:
        assert block.targets_BT is not None, "a language model is queried for tokens"
        if self._keeps_apart or not _are_packed(block.inputs["position_ids"], block.targets_BT):
            return
        kind = self.model.config.model_type
        raise TeacherAnswerError(
            f"request {request.request_id}: a {kind} teacher lets packed sequences attend to each "
            "other: set data.packing: false, or use another teacher"
        )

    def _experts(self) -> ExpertRouting:
        if self._routing is None:  # dense, or of a kind that is refused: let it say so
            self._routing = ExpertRouting.of(self.model)
        return self._routing


def _follows_length(module: Any) -> bool:
    """Whether it is a rotary embedding that transformers changes in a forward."""
    found = getattr(module, "rope_type", "default")
    kinds = found.values() if isinstance(found, dict) else [found]  # of each type of layer
    return any("dynamic" in kind or kind == "longrope" for kind in kinds)


def _routing_of(model: Any, moe: MoE) -> ExpertRouting | None:
    """None of a dense model, and of one whose gates are of another kind, where it need not obey."""
    try:
        return ExpertRouting.of(model)
    except ModelError:
        if isinstance(moe, OwnRouting):
            return None
        raise


def _are_packed(position_ids_BT: Tensor, targets_BT: Tensor) -> bool:
    """Whether a requested sequence follows another one."""
    return bool(((position_ids_BT == 0).cumsum(1)[targets_BT] > 1).any())


def as_float(logits_PV: np.ndarray) -> Tensor:
    """float32, of numbers that may be bfloat16 in the bits of uint16."""
    numbers = as_tensor(logits_PV)
    return numbers.view(torch.bfloat16).float() if logits_PV.dtype == np.uint16 else numbers.float()
