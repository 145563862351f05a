"""Memory and time of the fused head and loss against the whole logits.

One forward and backward of KL(p_T ‖ p_S) from last hidden states, of student and teacher alike
(the wire ``hidden``), to the gradients of the student's hidden states and head:

    dense     logits of both whole, F.kl_div(log_target=True), one backward
    chunked   distill.training.fused over chunks of trainer.loss_chunk_mb

    python benchmarks/chunked_loss.py [--vocabularies 8000 32000 151936] [--repetitions 3]
                                      [--device cpu|cuda] [--chunk-mb 340] [--out FILE]

Each measurement is a process of its own: on a CPU the most resident memory that it ever had above
what it had once its inputs and the place of the head's gradient existed (VmHWM, reset before); on a
GPU the same of torch's allocator. The two methods take turns; medians are reported. The dense one
needs about 15 GB at 151,936.

Shape suffixes: N positions, H hidden, V vocabulary.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

METHODS = ("dense", "chunked")


def dense(hidden_NH: Tensor, weight_VH: Tensor, teacher_NH: Tensor, head_VH: Tensor) -> Tensor:
    logp_S_NV = log_softmax(hidden_NH @ weight_VH.T, dim=-1)
    with torch.no_grad():
        logp_T_NV = log_softmax(teacher_NH @ head_VH.T, dim=-1)
    return kl_div(logp_S_NV, logp_T_NV, reduction="sum", log_target=True)


def chunked(
    hidden_NH: Tensor, weight_VH: Tensor, teacher_NH: Tensor, head_VH: Tensor, chunk_mb: float
) -> Tensor:
    from distill.aggregation import UniformMean
    from distill.objectives import ForwardKL
    from distill.records import Head, ScheduleValues, TokenAnswers
    from distill.training.fused import fused
    from distill.training.token_loss import Reader, TokenLoss
    from distill.wires import HiddenWire

    num_positions, num_columns = len(hidden_NH), len(weight_VH)
    queried_KP = torch.ones(1, num_positions, dtype=torch.bool, device=hidden_NH.device)
    loss = TokenLoss(
        torch.zeros(num_positions, dtype=torch.long, device=hidden_NH.device),
        num_columns,
        ScheduleValues(temperature=1.0, alpha=1.0),
        TokenAnswers((teacher_NH,), queried_KP),
        [Reader(HiddenWire(dtype="float32"), Head(head_VH))],
        UniformMean(),
        ForwardKL(),
    )
    return fused(hidden_NH, weight_VH, None, loss, loss.chunk(chunk_mb))


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Of one method, in this process: extra MB, seconds, and what was computed."""
    device, num_columns = arguments.device, arguments.vocabularies[0]
    num_positions, width = arguments.positions, arguments.hidden
    generator = torch.Generator(device).manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    hidden_NH, teacher_NH = drawn(num_positions, width), drawn(num_positions, width)
    weight_VH = drawn(num_columns, width).mul_(width**-0.5)
    head_VH = drawn(num_columns, width).mul_(width**-0.5)
    if arguments.method == "chunked":
        # Imports and first calls are neither method's memory.
        some = (hidden_NH[:8].clone().requires_grad_(), weight_VH[:64].clone().requires_grad_())
        chunked(*some, teacher_NH[:8], head_VH[:64], 1).backward()
    else:
        some = (hidden_NH[:8].clone().requires_grad_(), weight_VH[:64].clone().requires_grad_())
        dense(*some, teacher_NH[:8], head_VH[:64]).backward()
    hidden_NH.requires_grad_()
    weight_VH.requires_grad_()
    before = _memory_of(device, is_peak=False)
    started, cpu_started = time.perf_counter(), time.process_time()
    if arguments.method == "chunked":
        loss = chunked(hidden_NH, weight_VH, teacher_NH, head_VH, arguments.chunk_mb)
    else:
        loss = dense(hidden_NH, weight_VH, teacher_NH, head_VH)
    loss.backward()
    if device == "cuda":
        torch.cuda.synchronize()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    peak = _memory_of(device, is_peak=True)
    assert hidden_NH.grad is not None and weight_VH.grad is not None
    return {
        "extra_mb": (peak - before - weight_VH.nbytes) / 1e6,  # the head's gradient aside
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "loss": loss.item(),
        "grad_hidden_norm": hidden_NH.grad.norm().item(),
        "grad_weight_norm": weight_VH.grad.norm().item(),
    }


def _memory_of(device: str, is_peak: bool) -> int:
    """Bytes now, from where the peak is counted again, or the most since."""
    if device == "cuda":
        torch.cuda.synchronize()
        if is_peak:
            return torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    if not is_peak:
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM := VmRSS
    field = "VmHWM" if is_peak else "VmRSS"
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


def compare(arguments: argparse.Namespace, num_columns: int) -> dict:
    """Both methods at one vocabulary, in turns."""
    runs: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    for _ in range(arguments.repetitions):
        for method in METHODS:
            command = [sys.executable, __file__, "--method", method]
            command += ["--vocabularies", str(num_columns), "--device", arguments.device]
            command += ["--positions", str(arguments.positions), "--hidden", str(arguments.hidden)]
            command += ["--chunk-mb", str(arguments.chunk_mb)]
            text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            runs[method].append(json.loads(text.splitlines()[-1]))
            print(f"  {num_columns:>7,} {method:8} {runs[method][-1]}", file=sys.stderr)
    for name in ("loss", "grad_hidden_norm", "grad_weight_norm"):
        values = [run[name] for method in METHODS for run in runs[method]]
        assert max(values) - min(values) <= 1e-3 * abs(values[0]), (name, values)
    medians = {
        name: {method: statistics.median(run[name] for run in runs[method]) for method in METHODS}
        for name in ("extra_mb", "seconds")
    }
    return {
        "vocabulary": num_columns,
        "chunk_mb": arguments.chunk_mb,
        "extra_mb": medians["extra_mb"],
        "seconds": medians["seconds"],
        "memory_ratio": medians["extra_mb"]["dense"] / medians["extra_mb"]["chunked"],
        "time_ratio": medians["seconds"]["chunked"] / medians["seconds"]["dense"],
        "runs": runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="the chunked loss against the dense one")
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[8_000, 32_000, 151_936])
    parser.add_argument("--positions", type=int, default=4096)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--chunk-mb", type=float, default=340)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--method", choices=METHODS, help="measure this one, in this process")
    out = Path(__file__).parent / "results" / "chunked_loss.json"
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    if arguments.method:
        print(json.dumps(measure(arguments)))
        return
    load = round(os.getloadavg()[0], 2)
    cases = [compare(arguments, num_columns) for num_columns in arguments.vocabularies]
    report = {
        "date": date.today().isoformat(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "machine": {
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "device": _name_of(arguments.device),
            "load_average_before": load,
        },
        "positions": arguments.positions,
        "hidden": arguments.hidden,
        "dtype": "float32",
        "cases": cases,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print("vocabulary | dense MB | chunked MB | dense / chunked | dense s | chunked s | time")
    for case in cases:
        mb, seconds = case["extra_mb"], case["seconds"]
        print(
            f"{case['vocabulary']:>10,} | {mb['dense']:8,.0f} | {mb['chunked']:10,.0f} | "
            f"{case['memory_ratio']:15.1f} | {seconds['dense']:7.2f} | {seconds['chunked']:9.2f} | "
            f"× {case['time_ratio']:.3f}"
        )


def _name_of(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


if __name__ == "__main__":
    main()
