"""Bytes a token and tokens a second of each wire through Ray, against a bare return-and-get.

    python benchmarks/wire_transport.py [--out benchmarks/results/wire_transport.json]

One actor holds what a teacher has computed of some positions (hidden states and logits, random, of
a real vocabulary's width); a call encodes it in a wire and returns it, the caller gets it and
checks it as the stream does: through the object store, and, where the package nixl is installed,
past it (stream.transport: nixl). Compared with: an actor that returns as many bytes that it has
already, and a caller that touches them. Runs alternate; medians, and ratios within each run.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np
import ray
import torch

from distill.cluster import connect
from distill.config import Cluster
from distill.teachers.direct import prepare
from distill.teachers.wires import DenseWire, HiddenWire, SampledWire, TopKWire, WireFormat
from distill.teachers.wires.base import as_array

WIRES: dict[str, WireFormat] = {
    "dense, float32": DenseWire(dtype="float32"),
    "dense, bfloat16": DenseWire(dtype="bfloat16"),
    "hidden, bfloat16": HiddenWire(dtype="bfloat16"),
    "top 64": TopKWire(k=64, temperatures=(1.0,)),
    "12 samples": SampledWire(num_samples=12),
}


class Teacher:
    """An actor with its answers computed: what is timed is the wire."""

    def __init__(self, num_positions: int, hidden: int, vocabulary: int, num_threads: int) -> None:
        if find_spec("nixl"):
            prepare()  # as a teacher's actor does
        torch.set_num_threads(num_threads)
        torch.manual_seed(0)
        self._hidden_PH = torch.randn(num_positions, hidden)
        self._logits_PV = torch.randn(num_positions, vocabulary) * 3
        self._seeds_P = np.arange(num_positions, dtype=np.uint64)
        self._ready: dict[str, np.ndarray] = {}

    def answer_on_device(self, wire: WireFormat) -> torch.Tensor:
        said_PX = self._hidden_PH if wire.takes == "hidden" else self._logits_PV
        encoded_PX = wire.encode(said_PX, self._seeds_P)
        # As TeacherEngine does: the teacher's own float32 logits are not to travel either.
        return torch.empty_like(encoded_PX).copy_(encoded_PX)

    def answer(self, wire: WireFormat) -> np.ndarray:
        return as_array(self.answer_on_device(wire))

    def prepare(self, wire: WireFormat) -> int:
        """Encode once; returns the bytes of it."""
        self._ready[wire.name] = self.answer(wire)
        return self._ready[wire.name].nbytes

    def bare(self, name: str) -> np.ndarray:
        return self._ready[name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--positions", type=int, default=512)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/wire_transport.json"))
    args = parser.parse_args()
    rows = []
    with connect(Cluster(num_cpus=2)):
        given = (args.positions, args.hidden, args.vocabulary, 1)
        teacher, direct = ray.remote(num_cpus=1)(Teacher).remote(*given), None
        if find_spec("nixl") is not None:
            prepare()
            direct = ray.remote(num_cpus=1, enable_tensor_transport=True)(Teacher).remote(*given)
        for label, wire in WIRES.items():
            num_bytes = ray.get(teacher.prepare.remote(wire))
            rows.append({"wire": label, **timed(teacher, wire, args, num_bytes, direct)})
            print(line(rows[-1]))
    result = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"ray": ray.__version__, "torch": torch.__version__},
        "positions": args.positions,
        "hidden": args.hidden,
        "vocabulary": args.vocabulary,
        "runs": args.runs,
        "wires": rows,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")


def timed(
    teacher, wire: WireFormat, args: argparse.Namespace, num_bytes: int, direct
) -> dict[str, float]:
    width = args.hidden if wire.takes == "hidden" else args.vocabulary
    ours, bare, past = [], [], []
    for run in range(args.runs + 1):
        if direct is not None:
            began = time.perf_counter()
            method = direct.answer_on_device.options(tensor_transport="nixl")
            payload = as_array(ray.get(method.remote(wire)))
            fault = wire.fault(payload, args.positions, width)
            assert fault is None, fault
            if run:
                past.append(time.perf_counter() - began)
            del payload
        began = time.perf_counter()
        payload = ray.get(teacher.answer.remote(wire))
        fault = wire.fault(payload, args.positions, width)
        assert fault is None, fault
        between = time.perf_counter()
        raw = ray.get(teacher.bare.remote(wire.name))
        checksum = int(raw.view(np.uint8)[:, ::64].sum())  # pages of the store are touched
        ended = time.perf_counter()
        assert checksum >= 0
        if run:  # the first one starts the connection
            ours.append(between - began)
            bare.append(ended - between)
        del payload, raw
    figures = {
        "bytes_per_token": num_bytes / args.positions,
        "tokens_per_s": args.positions / median(ours),
        "bare_tokens_per_s": args.positions / median(bare),
        "time_over_bare": median(o / b for o, b in zip(ours, bare, strict=True)),
    }
    if past:
        over = median(p / o for p, o in zip(past, ours, strict=True))
        figures |= {
            "nixl_tokens_per_s": args.positions / median(past),
            "nixl_time_over_object_store": over,
        }
    return figures


def line(row: dict) -> str:
    past = f"  nixl {row['nixl_tokens_per_s']:>10,.0f}" if "nixl_tokens_per_s" in row else ""
    return (
        f"{row['wire']:>18}  {row['bytes_per_token']:>10,.0f} B/token  "
        f"{row['tokens_per_s']:>10,.0f} tokens/s  bare {row['bare_tokens_per_s']:>10,.0f}"
        f"{past}"
    )


if __name__ == "__main__":
    main()
