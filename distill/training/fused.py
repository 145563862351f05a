"""A language model's head and its loss, over chunks of positions, as one function.

The logits of a language model are by far its largest activation (4,096 positions of 151,936 columns
in float32: 2.5 GB, and a dense loss holds five to seven of them). Here the head's product, the loss
and the gradients of both are taken chunk by chunk in the forward pass, so that no [N, V] ever
exists: a chunk's logits turn into their own gradient in place, and only the gradients of the hidden
states, the weight and the bias are kept for the backward pass, which scales them. The idea is
that of Liger-Kernel's fused linear losses (Hsu et al. 2024, arXiv 2410.10989) [ours: two levels of
blocks and the vocabulary's].

Shape suffixes: N positions, n those of a chunk, m those of a block, H hidden, V vocabulary (the
head's rows; num_columns of them are used), C some columns of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from distill.objectives.log_softmax import LEFT_OUT

LEAST_ROWS = 16
"""Fewer positions in a chunk make the head's product one of vectors, bound by reading the weight;
the vocabulary is split instead."""
ROWS_OF_SPLIT = 256
"""Positions of a chunk where the vocabulary is split."""
LIVE_COPIES = 6
"""Temporaries of the student's size that a loss has alive at once, about."""
_BLOCK_BYTES = {"cpu": 8e6}
"""Logits of a block: on a CPU what its caches hold, elsewhere enough to fill the device."""

BlockLoss = Callable[[Tensor, slice], Tensor]
"""(logits_mV, its rows within the chunk) -> the sum of its positions' losses, differentiable."""


class ColumnsLoss(Protocol):
    """A chunk's loss where the vocabulary is split: its value, and the logits' gradient by part."""

    value: Tensor

    def gradient(self, columns: slice, logits_nC: Tensor) -> Tensor: ...


class PositionsLoss(Protocol):
    """A loss that is a sum over positions."""

    def of_chunk(self, rows: slice) -> BlockLoss:
        """The loss of the blocks of these positions. Called once a chunk: the teachers' outputs
        that are decoded here are held for this chunk only."""
        ...

    def of_columns(
        self, rows: slice, logits_of: Callable[[slice], Tensor], columns: list[slice]
    ) -> ColumnsLoss:
        """The same without any [n, V]: ``logits_of`` computes the student's logits of some columns,
        again each time that it is called."""
        ...


@dataclass(frozen=True)
class Chunk:
    """How much is in memory at once."""

    rows: int
    """Positions whose logits, the student's and the teachers', are alive together."""
    columns: int | None = None
    """Columns of the vocabulary alive together; None: all."""
    row_floats: int = 0
    """Floats of the loss's largest temporary of one position, if it may be larger than [V]."""

    @classmethod
    def within(
        cls, budget_mb: float, num_columns: int, num_teachers: int, can_split: bool = False
    ) -> Chunk:
        """The largest within ``budget_mb`` (10⁶ bytes) of float32 logits.

        ``num_teachers``: those whose logits are rebuilt whole. ``can_split``: whether the loss can
        do with parts of the vocabulary, which are then taken if not even LEAST_ROWS rows fit; that
        costs three products with each head in place of one.
        """
        num_floats = budget_mb * 1e6 / 4
        rows = int(num_floats / (num_columns * (1 + num_teachers)))
        if rows >= LEAST_ROWS or not can_split:
            return cls(max(1, rows))
        columns = int(num_floats / (ROWS_OF_SPLIT * (LIVE_COPIES + num_teachers)))
        return cls(ROWS_OF_SPLIT, max(1, columns))


def fused(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    bias_V: Tensor | None,
    loss: PositionsLoss,
    chunk: Chunk,
    num_columns: int | None = None,
    is_left_out_V: Tensor | None = None,
) -> Tensor:
    """Σ over positions of ``loss`` at the logits hidden · weightᵀ + bias: a scalar.

    ``num_columns``: the vocabulary's size, where more rows of the weight pad it; their gradient is
    zero. So is that of the rows among them that ``is_left_out_V`` (bool) marks, whose tokens get no
    probability. The product is taken in the weight's dtype, or autocast's; logits, loss and the
    sums of gradients are float32 at least. Where no gradient is asked for, none is computed. There
    is one backward pass: it gives the gradients away, uncopied.
    """
    needed = [hidden_NH, weight_VH] if bias_V is None else [hidden_NH, weight_VH, bias_V]
    num_columns = num_columns or len(weight_VH)
    is_left_out_C = None if is_left_out_V is None else is_left_out_V[:num_columns]
    plan = _Plan(loss, chunk, num_columns, is_left_out_C)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in needed):
        return _Fused.apply(hidden_NH, weight_VH, bias_V, plan)  # pyright: ignore[reportReturnType]
    with torch.no_grad():
        return _Pass(hidden_NH, weight_VH, bias_V, plan, (False, False, False)).run()


class FusedHead(nn.Linear):
    """A student's output layer that can also return the loss: ``head(hidden, loss, chunk)``.

    As a module of the student it is what ZeRO-3's hooks gather the weight for, which the loss
    therefore needs no other access to. With hidden states alone it is the linear layer that it
    stands for: the model generates, and its state dict keeps its names.
    """

    is_left_out_V: Tensor | None

    @classmethod
    def of(cls, layer: nn.Linear, left_out: Sequence[int] = ()) -> FusedHead:
        """One with the very parameters of ``layer``: tied embeddings stay tied. ``left_out``:
        tokens that it never predicts."""
        has_bias = layer.bias is not None
        head = cls(layer.in_features, layer.out_features, bias=has_bias, device="meta")
        head.weight = layer.weight
        if has_bias:
            head.bias = layer.bias
        is_left_out_V = None
        if left_out:
            is_left_out_V = torch.zeros(layer.out_features, dtype=torch.bool)
            is_left_out_V[list(left_out)] = True
            is_left_out_V = is_left_out_V.to(layer.weight.device)
        head.register_buffer("is_left_out_V", is_left_out_V, persistent=False)
        return head.train(layer.training)

    def forward(
        self,
        input: Tensor,
        loss: PositionsLoss | None = None,
        chunk: Chunk | None = None,
        num_columns: int | None = None,
    ) -> Tensor:
        if loss is None:
            logits = super().forward(input)
            if self.is_left_out_V is None:
                return logits
            return logits.masked_fill(self.is_left_out_V, LEFT_OUT)
        assert chunk is not None
        is_left_out_V = self.is_left_out_V
        return fused(input, self.weight, self.bias, loss, chunk, num_columns, is_left_out_V)


@dataclass(frozen=True)
class _Plan:
    loss: PositionsLoss
    chunk: Chunk
    num_columns: int
    is_left_out_C: Tensor | None


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, plan: _Plan
    ) -> Tensor:
        walk = _Pass(hidden_NH, weight_VH, bias_V, plan, ctx.needs_input_grad[:3])
        value = walk.run()
        ctx.gradients = walk.gradients()
        return value

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        # Let go of here, so that autograd makes them the parameters' .grad without a copy.
        gradients, ctx.gradients = ctx.gradients, None
        assert gradients is not None, "the fused loss has one backward pass: call it again"
        return *(None if g is None else g.mul_(grad_outputs[0]) for g in gradients), None


class _Pass:
    """One pass over the chunks, with the sums of its gradients."""

    def __init__(
        self,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        plan: _Plan,
        needed: tuple[bool, bool, bool],
    ) -> None:
        device = hidden_NH.device.type
        self._plan = plan
        self._inputs = (hidden_NH, weight_VH, bias_V)
        self._dtype = weight_VH.dtype
        if torch.is_autocast_enabled(device):
            self._dtype = torch.get_autocast_dtype(device)
        # Logits, losses and sums: bf16 loses the tail that a divergence is about.
        self._wide = torch.promote_types(self._dtype, torch.float32)
        self._hidden_NH = hidden_NH
        self._weight_CH = weight_VH[: plan.num_columns].to(self._dtype)
        self._bias_C = None if bias_V is None else bias_V[: plan.num_columns].to(self._dtype)
        self._grad_hidden_NH, self._grad_weight_VH, self._grad_bias_V = (
            _zeros_like(tensor, self._wide) if is_needed and tensor is not None else None
            for tensor, is_needed in zip(self._inputs, needed, strict=True)
        )
        self._needs_gradient = any(needed)

    def gradients(self) -> tuple[Tensor | None, ...]:
        """Of hidden states, weight and bias, in their dtypes; None where not needed."""
        sums = (self._grad_hidden_NH, self._grad_weight_VH, self._grad_bias_V)
        return tuple(
            None if grad is None or tensor is None else grad.to(tensor.dtype)
            for grad, tensor in zip(sums, self._inputs, strict=True)
        )

    def run(self) -> Tensor:
        device = self._hidden_NH.device
        value = torch.zeros((), dtype=self._wide, device=device)
        take = self._whole if self._plan.chunk.columns is None else self._split
        with torch.autocast(device.type, enabled=False):
            for rows in slices(len(self._hidden_NH), self._plan.chunk.rows):
                value += take(rows, self._hidden_NH[rows].to(self._dtype))
        return value

    def _logits(self, hidden_nH: Tensor, columns: slice = slice(None)) -> Tensor:
        bias_C = None if self._bias_C is None else self._bias_C[columns]
        logits_nC = linear(hidden_nH, self._weight_CH[columns], bias_C).to(self._wide)
        if self._plan.is_left_out_C is None:
            return logits_nC
        return logits_nC.masked_fill_(self._plan.is_left_out_C[columns], LEFT_OUT)

    def _whole(self, rows: slice, hidden_nH: Tensor) -> Tensor:
        logits_nV = self._logits(hidden_nH)
        block_loss = self._plan.loss.of_chunk(rows)
        value = logits_nV.new_zeros(())
        # Smaller blocks for the loss than for the product: their many temporaries stay small.
        rows_of_block = _rows_of_block(logits_nV, self._plan.chunk.row_floats)
        for block in slices(len(logits_nV), rows_of_block):
            logits_mV = logits_nV[block].detach()
            with torch.enable_grad() if self._needs_gradient else nullcontext():
                logits_mV.requires_grad_(self._needs_gradient)
                loss = block_loss(logits_mV, block)
            value += loss.detach()
            if self._needs_gradient:
                # In place: the logits are not needed any more.
                logits_nV[block] = _gradient(loss, logits_mV)
        del block_loss
        if self._needs_gradient:
            self._accumulate(rows, slice(0, self._plan.num_columns), hidden_nH, logits_nV)
        return value

    def _split(self, rows: slice, hidden_nH: Tensor) -> Tensor:
        assert self._plan.chunk.columns is not None
        blocks = list(slices(self._plan.num_columns, self._plan.chunk.columns))
        found = self._plan.loss.of_columns(rows, lambda at: self._logits(hidden_nH, at), blocks)
        if self._needs_gradient:
            for columns in blocks:
                grad_nC = found.gradient(columns, self._logits(hidden_nH, columns))
                self._accumulate(rows, columns, hidden_nH, grad_nC)
        return found.value

    def _accumulate(self, rows: slice, columns: slice, hidden_nH: Tensor, grad_nC: Tensor) -> None:
        """Add the inputs' gradients that follow from a chunk's gradient at some columns."""
        if self._grad_bias_V is not None:
            self._grad_bias_V[columns] += grad_nC.sum(0)
        grad_nC = grad_nC.to(self._dtype)
        if self._grad_hidden_NH is not None:
            self._grad_hidden_NH[rows] += grad_nC @ self._weight_CH[columns]
        if self._grad_weight_VH is None:
            return
        grad_CH = self._grad_weight_VH[columns]
        if self._dtype == self._wide:
            grad_CH.addmm_(grad_nC.T, hidden_nH)
        else:
            # The sum stays float32; parts, so that no second weight of the product's exists.
            for part in slices(len(grad_CH), 8192):
                grad_CH[part] += grad_nC[:, part].T @ hidden_nH


def slices(total: int, size: int) -> Iterator[slice]:
    """0..total in pieces of ``size``, the last one shorter."""
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def _gradient(loss: Tensor, logits_mV: Tensor) -> Tensor | float:
    """0 where the loss does not depend on the logits: of positions without an answer."""
    if not loss.requires_grad:
        return 0.0
    (grad_mV,) = torch.autograd.grad(loss, logits_mV, allow_unused=True)
    return 0.0 if grad_mV is None else grad_mV


def _rows_of_block(logits_nV: Tensor, row_floats: int) -> int:
    num_bytes = _BLOCK_BYTES.get(logits_nV.device.type, 64e6)
    width = max(logits_nV.shape[1], row_floats)
    return max(1, math.floor(num_bytes / (width * logits_nV.element_size())))


def _zeros_like(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(tensor.shape, dtype=dtype, device=tensor.device)
