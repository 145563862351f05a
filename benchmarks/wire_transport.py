"""Each wire's whole path from a teacher to a student rank, against a bare return-and-get by Ray.

    python benchmarks/wire_transport.py [--before WORKTREE] [--runs 7]

A teacher's actor has hidden states and logits (random, of a real vocabulary's width), so that its
forward takes no time. A TeacherStream requests one step at a time: the actor tests that the numbers
are finite, encodes and returns them; the rank tests them again, has the cache keep them, and has
tensors for the loss. Measured as a single request without a stream, as steps without a cache, with
one on disk, past the object store (stream.transport nixl, where that is installed), and with four
steps in flight. Compared with an
actor that returns as many bytes that it has already, and a caller that touches each page of them.
All alternate within each run; medians, and medians of the ratios within each run.

``--before``: a folder with an older version of the repository, measured after this one by the same
script in a process of its own. ``stages_ms``: what parts of the path take alone, in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import ray
import torch

from distill.cluster.connect import connect
from distill.config import Cluster, Serving, Stream
from distill.records import Batch, TokenAnswers
from distill.teachers.cache import NoCache, TeacherCache, TeacherKey
from distill.teachers.replica_pool import RayTeacherPool
from distill.teachers.requests import TeacherRequest
from distill.teachers.served import ServedTeacher
from distill.teachers.stream import TeacherStream
from distill.wires import DenseWire, HiddenWire, SampledWire, TopKWire, WireFormat
from distill.wires.base import as_array

WIRES: dict[str, WireFormat] = {
    "dense, float32": DenseWire(dtype="float32"),
    "dense, bfloat16": DenseWire(dtype="bfloat16"),
    "hidden, bfloat16": HiddenWire(dtype="bfloat16"),
    "top 64": TopKWire(k=64, temperatures=(1.0,)),
    "12 samples": SampledWire(num_samples=12),
}
IN_FLIGHT = 4


@dataclass
class Stored:
    """A model whose output is there already: the same numbers for every request."""

    num_columns: int
    output: torch.Tensor | None = None

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        if self.output is None or len(self.output) != len(features):
            torch.manual_seed(0)
            self.output = torch.randn(len(features), self.num_columns) * 3
        return self.output


class Bare:
    """Returns bytes that it has."""

    def __init__(self) -> None:
        self._ready = np.zeros((0, 0), np.uint8)

    def make(self, num_rows: int, num_bytes: int) -> None:
        rng = np.random.default_rng(0)
        self._ready = rng.integers(0, 255, (num_rows, num_bytes // num_rows), np.uint8)

    def get(self) -> np.ndarray:
        return self._ready


@dataclass(frozen=True)
class Shown:
    features_BD: np.ndarray


class Rows:
    """Rows without content, as tokens and as batches: each step has its own."""

    steps_per_epoch = 1 << 40

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows

    def lengths(self, rows: Any) -> np.ndarray:
        return np.ones(len(rows), np.int64)

    def padded(self, rows: Any) -> Shown:
        return Shown(np.zeros((len(rows), 1), np.float32))

    def at(self, step: int) -> list[Batch]:
        rows_B = np.arange(step * self._num_rows, (step + 1) * self._num_rows)
        nothing_B = torch.zeros(len(rows_B), dtype=torch.int64)
        every_B = torch.ones(len(rows_B), dtype=torch.bool)
        return [Batch(rows_B, nothing_B, nothing_B, every_B, len(rows_B), 0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--positions", type=int, default=512, help="of hidden states")
    parser.add_argument("--logit-positions", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--before", type=Path, help="folder of an older version")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/wire_transport.json"))
    parser.add_argument("--measure", action="store_true", help="only this version, to --out")
    args = parser.parse_args()
    if args.measure:
        args.out.write_text(json.dumps(measured(args)))
        return
    here = Path(__file__).resolve().parent.parent
    after = in_own_process(here, args)
    before = in_own_process(args.before, args) if args.before else {}
    rows = [after[label] | ({"before": before[label]} if before else {}) for label in WIRES]
    print("\n".join(table(rows)))
    result = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"ray": ray.__version__, "torch": torch.__version__},
        "positions": args.positions,
        "logit_positions": args.logit_positions,
        "hidden": args.hidden,
        "vocabulary": args.vocabulary,
        "runs": args.runs,
        "wires": rows,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")


def in_own_process(repository: Path, args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        keys = ("positions", "logit_positions", "hidden", "vocabulary", "runs")
        options = [f"--{key.replace('_', '-')}={getattr(args, key)}" for key in keys]
        command = [sys.executable, str(Path(__file__).resolve()), "--measure", f"--out={out}"]
        folder_of_code = str(repository.resolve())  # Ray's workers import from both
        environment = os.environ | {"PYTHONPATH": folder_of_code}
        subprocess.run([*command, *options], check=True, env=environment, cwd=folder_of_code)
        return json.loads(out.read_text())


def measured(args: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(1)
    specs = [
        ServedTeacher("hidden", "", Serving(num_cpus=1), args.hidden, model=Stored(args.hidden)),
        ServedTeacher(
            "logits", "", Serving(num_cpus=1), args.vocabulary, model=Stored(args.vocabulary)
        ),
    ]
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(connect(Cluster(num_cpus=6)))
        client = stack.enter_context(RayTeacherPool(specs)).client(Stream())
        bare = ray.remote(num_cpus=1)(Bare).remote()
        for label, wire in WIRES.items():
            found[label] = {"wire": label} | timed(wire, args, client, None, bare, folder / "store")
            print(label, json.dumps(found[label]))
        if find_spec("nixl") is not None:
            # Last: with nixl in the process, allocating memory takes several times as long.
            pool = stack.enter_context(RayTeacherPool(specs, transport="nixl"))
            past = pool.client(Stream(transport="nixl"))
            for label, wire in WIRES.items():
                both = timed(wire, args, client, past, bare, folder / "nixl")
                found[label] |= {key: both[key] for key in both if key.startswith("nixl_")}
    return found


def timed(
    wire: WireFormat, args: argparse.Namespace, client: Any, past: Any, bare: Any, folder: Path
) -> dict[str, Any]:
    is_hidden = wire.takes == "hidden"
    name = "hidden" if is_hidden else "logits"
    width = args.hidden if is_hidden else args.vocabulary
    num_rows = args.positions if is_hidden else args.logit_positions
    rows = Rows(num_rows)
    key = TeacherKey("w", "d", "t", wire.name, 1)

    def steps(client: Any, cache: Any, in_flight: int) -> Iterator[int]:
        """One step's answers each: their bytes."""
        stream = TeacherStream(
            client,
            [ServedTeacher(name, "", Serving(num_cpus=1, wire=wire), width)],
            {name: rows},
            cache=cache,
            in_flight=in_flight,
            positions_of=lambda part: np.ones(len(part.rows_B), np.int64),
        )
        with stream:
            for step in stream.feed(rows, 0, 1 << 30):
                answers = step.parts[0][1]
                assert isinstance(answers, TokenAnswers)
                (payload_PX,) = answers.payloads
                touch(payload_PX.view(torch.uint8).numpy())
                yield payload_PX.nbytes

    def asked() -> None:
        features_BD = rows.padded(range(num_rows)).features_BD
        request = TeacherRequest("r", np.arange(num_rows), features_BD=features_BD, wire=wire)
        output = client.call(name, request)
        request.check(output, width)
        touch(output.payload.view(np.uint8))

    def returned() -> None:
        touch(ray.get(bare.get.remote()))

    with ExitStack() as stack:
        cache = TeacherCache(folder / wire.type / str(wire.name.count("/b")), {name: key}, "rank0")
        ways = {
            # in_flight 0: the next step is requested once this one has been used.
            "ours": steps(client, NoCache(), 0),
            "cached": steps(client, cache, 0),
            "ahead": steps(client, NoCache(), IN_FLIGHT),
        }
        if past is not None:
            ways["nixl"] = steps(past, NoCache(), 0)
        for feed in ways.values():
            stack.callback(feed.close)  # type: ignore[attr-defined]
        num_bytes = next(ways["ours"])
        ray.get(bare.make.remote(num_rows, num_bytes))
        pending = deque([bare.get.remote() for _ in range(IN_FLIGHT + 1)])

        def returned_ahead() -> None:
            touch(ray.get(pending.popleft()))
            pending.append(bare.get.remote())

        calls: dict[str, Callable[[], Any]] = {
            "bare": returned,
            "bare_ahead": returned_ahead,
            "asked": asked,
            **{way: feed.__next__ for way, feed in ways.items()},
        }
        took: dict[str, list[float]] = {way: [] for way in calls}
        for run in range(args.runs + 1):
            for way, call in calls.items():
                is_ahead = way.endswith("ahead")
                num_steps = 2 * (IN_FLIGHT + 1) if is_ahead else 1
                began = time.perf_counter()
                for _ in range(num_steps):
                    call()
                if run:  # the first one starts connections
                    took[way].append((time.perf_counter() - began) / num_steps)
    over = {
        way: median(t / b for t, b in zip(took[way], took["bare"], strict=True))
        for way in (*ways, "asked")
    }
    over["ahead"] = median(t / b for t, b in zip(took["ahead"], took["bare_ahead"], strict=True))
    rates = {way: num_rows / median(times) for way, times in took.items()}
    figures = {
        "bytes_per_token": num_bytes / num_rows,
        "tokens_per_s": rates["ours"],
        "bare_tokens_per_s": rates["bare"],
        "time_over_bare": over["ours"],
        "share_of_bare": 1 / over["ours"],
        "asked_tokens_per_s": rates["asked"],
        "asked_time_over_bare": over["asked"],
        "cached_tokens_per_s": rates["cached"],
        "cached_time_over_bare": over["cached"],
        "ahead_tokens_per_s": rates["ahead"],
        "bare_ahead_tokens_per_s": rates["bare_ahead"],
        "ahead_time_over_bare": over["ahead"],
        "ms": {way: 1e3 * median(times) for way, times in took.items()},
        "stages_ms": stages(wire, num_rows, width),
    }
    if past is not None:
        nixl = median(p / o for p, o in zip(took["nixl"], took["ours"], strict=True))
        figures |= {"nixl_tokens_per_s": rates["nixl"], "nixl_time_over_object_store": nixl}
    return figures


def stages(wire: WireFormat, num_rows: int, width: int) -> dict[str, float]:
    """Of an answer in this process: encoding it, testing it at the rank, and copying it once."""
    payload_PX = Stored(width)(torch.zeros(num_rows, 1))
    seeds_P = np.arange(num_rows, dtype=np.uint64)
    payload = as_array(wire.encode(payload_PX, seeds_P))
    calls: dict[str, Callable[[], Any]] = {
        "encode": lambda: wire.encode(payload_PX, seeds_P),
        "fault": lambda: wire.fault(payload, num_rows, width),
        "copy": lambda: np.array(payload),
    }
    found = {}
    for name, call in calls.items():
        took = []
        for _ in range(3):
            began = time.perf_counter()
            call()
            took.append(1e3 * (time.perf_counter() - began))
        found[name] = median(took)
    return found


def touch(payload: np.ndarray) -> None:
    """A byte of each cache line: pages of the store are mapped only when they are read."""
    assert int(payload[:, ::64].sum()) >= 0


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "share of a bare return-and-get (request, step of a stream, with a cache, in flight)"
    for row in rows:
        for version, one in (("now", row), ("before", row.get("before"))):
            if one is not None:
                yield (
                    f"{row['wire']:>17} {version:>7} {one['bytes_per_token']:>8,.0f} B/token"
                    f" {one['tokens_per_s']:>7,.0f} tokens/s"
                    f"  {1 / one['asked_time_over_bare']:.2f} {1 / one['time_over_bare']:.2f}"
                    f" {1 / one['cached_time_over_bare']:.2f}"
                    f" {1 / one['ahead_time_over_bare']:.2f}"
                )


if __name__ == "__main__":
    main()
