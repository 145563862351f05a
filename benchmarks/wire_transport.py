"""Bytes a token and tokens a second of each wire through Ray, beside a bare return-and-get.

    python benchmarks/wire_transport.py [--out benchmarks/results/wire_transport.json]

One actor holds what a teacher has computed of some positions (hidden states and logits, random, of
a real vocabulary's width); a call encodes it in a wire and returns it, the caller gets it and
checks it as the stream does. Beside each: an actor that returns as many bytes that it has already,
and a caller that touches them. Runs of the two alternate; medians, and the ratio within each run.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np
import ray
import torch

from distill.cluster import connect
from distill.config import Cluster
from distill.teachers.wires import DenseWire, HiddenWire, SampledWire, TopKWire, WireFormat

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
        torch.set_num_threads(num_threads)
        torch.manual_seed(0)
        self._hidden_PH = torch.randn(num_positions, hidden)
        self._logits_PV = torch.randn(num_positions, vocabulary) * 3
        self._seeds_P = np.arange(num_positions, dtype=np.uint64)
        self._ready: dict[str, np.ndarray] = {}

    def answer(self, wire: WireFormat) -> np.ndarray:
        said_PX = self._hidden_PH if wire.takes == "hidden" else self._logits_PV
        return wire.encode(said_PX, self._seeds_P)

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
        actor = ray.remote(Teacher).options(num_cpus=1)
        teacher = actor.remote(args.positions, args.hidden, args.vocabulary, 1)
        for label, wire in WIRES.items():
            num_bytes = ray.get(teacher.prepare.remote(wire))
            rows.append({"wire": label, **timed(teacher, wire, args, num_bytes)})
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


def timed(teacher, wire: WireFormat, args: argparse.Namespace, num_bytes: int) -> dict[str, float]:
    width = args.hidden if wire.takes == "hidden" else args.vocabulary
    ours, bare = [], []
    for run in range(args.runs + 1):
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
    return {
        "bytes_per_token": num_bytes / args.positions,
        "tokens_per_s": args.positions / median(ours),
        "bare_tokens_per_s": args.positions / median(bare),
        "time_over_bare": median(o / b for o, b in zip(ours, bare, strict=True)),
    }


def line(row: dict) -> str:
    return (
        f"{row['wire']:>18}  {row['bytes_per_token']:>10,.0f} B/token  "
        f"{row['tokens_per_s']:>10,.0f} tokens/s  bare {row['bare_tokens_per_s']:>10,.0f}"
    )


if __name__ == "__main__":
    main()
