"""Small requests of four ranks to one teacher, computed one by one and together (batch_requests).

    python benchmarks/batch_requests.py [--seconds 8]

A Llama of random weights with one CPU; each of four clients has one request outstanding, of one
sequence, on the wire hidden. Off and on alternate; sequences a second of each round, and medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import threading
import time
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import ray
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from distill.cluster.connect import connect
from distill.config import Cluster, Serving, Stream
from distill.teachers.replica_pool import RayTeacherPool
from distill.teachers.requests import TeacherRequest
from distill.teachers.served import ServedTeacher
from distill.wires import HiddenWire

VOCABULARY = 8192


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=32, help="of each sequence")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/batch_requests.json"))
    args = parser.parse_args()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=args.hidden,
            intermediate_size=2 * args.hidden,
            num_hidden_layers=args.layers,
            num_attention_heads=8,
        )
    )
    specs = [
        ServedTeacher(
            name,
            "",
            Serving(num_cpus=1, batch_requests=is_batched, wire=HiddenWire(dtype="float32")),
            VOCABULARY,
            backend="language_model",
            model=model,
        )
        for name, is_batched in (("one by one", False), ("together", True))
    ]
    rates: dict[str, list[float]] = {spec.name: [] for spec in specs}
    with connect(Cluster(num_cpus=4)), RayTeacherPool(specs) as pool:
        clients = [pool.client(Stream(), rank) for rank in range(args.clients)]
        for round_ in range(args.rounds + 1):
            for name in rates:
                rate = sequences_per_s(name, clients, args)
                if round_:  # the first one warms up
                    rates[name].append(rate)
    ratios = [t / o for t, o in zip(rates["together"], rates["one by one"], strict=True)]
    result = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"ray": ray.__version__, "torch": torch.__version__},
        **{key: getattr(args, key) for key in ("clients", "tokens", "hidden", "layers")},
        "sequences_per_s": {name: median(found) for name, found in rates.items()},
        "rounds": rates,
        "together_over_one_by_one": median(ratios),
    }
    print(json.dumps(result, indent=1))
    args.out.write_text(json.dumps(result, indent=1) + "\n")


def sequences_per_s(name: str, clients: list[Any], args: argparse.Namespace) -> float:
    counts = [0] * len(clients)
    stop = time.perf_counter() + args.seconds

    def run(rank: int) -> None:
        rng = np.random.default_rng(rank)
        places_BT = np.arange(args.tokens)[None]
        while time.perf_counter() < stop:
            request = TeacherRequest(
                f"{rank}/{counts[rank]}",
                np.array([rank]),
                input_ids_BT=rng.integers(0, VOCABULARY, places_BT.shape),
                position_ids_BT=places_BT,
                targets_BT=places_BT < args.tokens - 1,
            )
            clients[rank].call(name, request)
            counts[rank] += 1

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(clients))]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
