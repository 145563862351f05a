"""Parameters, size, operations, latency and memory of a model."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from distill.errors import ModelError
from distill.models.decoder import is_causal
from distill.models.features import FeatureClassifier
from distill.models.greedy import greedily
from distill.models.load import usable_positions
from distill.models.sizes import safetensors_bytes


@dataclass(frozen=True)
class Efficiency:
    params: int
    size_mb: float  # MB = 10⁶ bytes of the float32 safetensors file
    gflops: float  # 10⁹ floating-point operations (a multiply-add is 2), one sequence
    latency_ms: float  # median of one sequence alone (batch 1)
    latency_p95_ms: float
    peak_memory_mb: float
    """MB of weights and of the live tensors of one forward (batch 1); of a language model, of
    generating, its keys and values among them."""
    device: str  # where latency and memory were measured
    tokens_per_s: float | None = None
    """Language models: tokens generated a second (batch 1), a short prompt's forward included."""


NUM_READ = 32
NUM_WRITTEN = 32
"""Tokens of the prompt, and after it, where generation is measured; fewer where positions end."""


def measure(model: PreTrainedModel, seq_length: int, num_runs: int = 30) -> Efficiency:
    """One forward of one sequence of ``seq_length`` tokens, on the device where the model is.

    A model of features gets one row, of any length. A language model also generates; one with
    low-rank updates is measured as ``merged``.

    The model is measured in eval mode and left in the mode it was in.
    """
    assert num_runs >= 2, "quantiles need two runs"
    was_training = model.training
    model.eval()
    try:
        inputs = _one_sequence(model, seq_length)
        with torch.inference_mode():
            gflops = _gflops(lambda: model(**inputs))
            times_ms = _times_ms(lambda: model(**inputs), num_runs, model.device)
            with LiveTensors() as live:
                model(**inputs)
            writing = _generation(model) if is_causal(model) else None
    finally:
        model.train(was_training)
    percentiles = quantiles(times_ms, n=100, method="inclusive")
    shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    kept = model.state_dict().keys()  # buffers that are not kept are in no file
    shapes |= {name: tuple(t.shape) for name, t in model.named_buffers() if name in kept}
    weights = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    peak = live.peak_bytes if writing is None else writing.peak_bytes
    return Efficiency(
        params=sum(tensor.numel() for tensor in model.parameters()),
        size_mb=safetensors_bytes(shapes) / 1e6,
        gflops=gflops,
        latency_ms=percentiles[49],
        latency_p95_ms=percentiles[94],
        peak_memory_mb=(weights + peak) / 1e6,
        device=_describe(model.device),
        tokens_per_s=None if writing is None else writing.tokens_per_s,
    )


class _Generation(NamedTuple):
    tokens_per_s: float
    peak_bytes: int


def _generation(model: PreTrainedModel) -> _Generation:
    half = max(1, usable_positions(model.config) // 2)
    num_read, num_new = min(NUM_READ, half), min(NUM_WRITTEN, half)
    ids_BT = torch.ones(1, num_read, dtype=torch.int64)

    def write() -> None:
        greedily(model, ids_BT, torch.ones_like(ids_BT), num_new)  # without an end: all of them

    times_ms = _times_ms(write, num_runs=3, device=model.device, num_warm=1)
    with LiveTensors() as live:
        write()
    return _Generation(num_new / median(times_ms) * 1e3, live.peak_bytes)


def measure_on_cpu(model: PreTrainedModel, seq_length: int) -> Efficiency:
    """One sequence on one CPU thread: comparable between machines with different core counts."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return measure(model, seq_length)
    finally:
        torch.set_num_threads(threads)


class LiveTensors(TorchDispatchMode):
    """The largest number of bytes of live tensors made inside, on any device.

    Memory that an operation allocates and frees itself is not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak_bytes = 0
        self._live: dict[int, int] = {}  # bytes of each storage made here, by its address

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = {storage.data_ptr() for storage in _storages((args, kwargs))}  # views of weights
        output = func(*args, **kwargs)
        for storage in _storages(output):
            if storage.data_ptr() not in given:
                self._hold(storage)
        return output

    def _hold(self, storage: torch.UntypedStorage) -> None:
        address = storage.data_ptr()
        if address and address not in self._live:
            self._live[address] = storage.nbytes()
            weakref.finalize(storage, self._live.pop, address, None)
            self.peak_bytes = max(self.peak_bytes, sum(self._live.values()))


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_iter(tree) if isinstance(leaf, torch.Tensor)]


def latency_ms(forward: Callable[[], Any], num_runs: int = 30) -> float:
    """Median duration of a call on the CPU."""
    return quantiles(_times_ms(forward, num_runs, torch.device("cpu")), n=2, method="inclusive")[0]


def folder_size_mb(folder: str | Path) -> float:
    """MB (10⁶ bytes) of a folder's safetensors files."""
    files = list(Path(folder).glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder} has no safetensors file: give the folder of an exported model")
    return sum(file.stat().st_size for file in files) / 1e6


def _one_sequence(model: PreTrainedModel, seq_length: int) -> dict[str, torch.Tensor]:
    if isinstance(model, FeatureClassifier):
        return {"features": torch.zeros(1, model.config.num_features, device=model.device)}
    # Any token but the padding, which RoBERTa gives no position.
    token = 1 if model.config.pad_token_id == 0 else 0
    ids_BT = torch.full((1, seq_length), token, dtype=torch.int64, device=model.device)
    return {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT)}


def _gflops(forward: Callable[[], Any]) -> float:
    # The counter knows matrix products, not every fused attention kernel: MATH is made of products.
    counter = FlopCounterMode(display=False, custom_mapping=_grouped_products())
    with sdpa_kernel(SDPBackend.MATH), counter:
        forward()
    return counter.get_total_flops() / 1e9


def _grouped_products() -> dict[Any, Any]:
    """The products of a mixture of experts, which the counter does not know."""
    import transformers.integrations.moe  # noqa: F401 (it registers one)

    def flops(rows: Any, weights: Any, *args: Any, **kwargs: Any) -> int:
        return 2 * prod(rows) * weights[-1]  # [M, K] rows, each by one [K, N] of [E, K, N]

    return {torch.ops.aten._grouped_mm: flops, torch.ops.transformers.grouped_mm_fallback: flops}


def _times_ms(
    forward: Callable[[], Any], num_runs: int, device: torch.device, num_warm: int = 3
) -> list[float]:
    def synchronise() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(num_warm):  # first runs allocate and choose kernels
        forward()
    times = []
    for _ in range(num_runs):
        synchronise()
        start = time.perf_counter()
        forward()
        synchronise()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"
