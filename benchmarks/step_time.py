"""Seconds of one step of a distillation on two CPU cores: first epoch, later epochs, other loops.

    python benchmarks/step_time.py [--before CHECKOUT] [--trl PYTHON] [--rounds 2] [--steps 16]

A Llama of 512 × 8 layers teaches one of 192 × 4, forward KL at T = 2, batches of 8 × 128 random
tokens, a vocabulary of 8,192, float32, wire ``hidden``, Arrow cache, three epochs. Every round
runs in turn, in new processes:

- ``distill train`` with the defaults (this checkout; and, with ``--before``, another one);
- the same with ``trainer.num_threads_cached: null``: as many threads as in the first epoch;
- a plain loop in torch on all cores: teacher and student, and the student alone;
- with ``--trl``, TRL's GKD trainer (λ = 0), by an interpreter that has trl.

The first two steps of a run and the first of an epoch are left out. Use a machine that does nothing
else: a second process makes every figure meaningless.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
VOCAB, BATCH, LENGTH, EPOCHS = 8192, 8, 128, 3
TEACHER, STUDENT = (512, 8, 8), (192, 4, 4)
"""Width, layers and heads."""
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""Decide how threads wait for work, of all that is measured here; distill sets the latter where
neither is set."""
NAMES = {
    "before": "distill, checkout before",
    "now": "distill",
    "same_threads": "distill, `trainer.num_threads_cached: null`",
    "loop": "plain torch loop",
    "student": "plain torch loop, student alone",
    "trl": "TRL GKD trainer",
}


def llama(width: int, layers: int, heads: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=512,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


def write_inputs(root: Path, steps: int) -> None:
    """Both models with their tokenizer, and random texts of LENGTH tokens."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<bos>", "<eos>", "<unk>"]
    words = [*special, *(f"w{i}" for i in range(len(special), VOCAB))]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
    )
    torch.manual_seed(0)
    for name, shape in (("teacher", TEACHER), ("student", STUDENT)):
        llama(*shape).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    drawn = torch.randint(len(special), VOCAB, (BATCH * steps + 32, LENGTH - 1))
    texts = [" ".join(words[i] for i in row) for row in drawn.tolist()]
    splits = ["train"] * (BATCH * steps) + ["validation"] * 16 + ["test"] * 16
    pq.write_table(pa.table({"text": texts, "split": splits}), root / "data.parquet")


def config(root: Path, output: Path, **trainer: Any) -> dict[str, Any]:
    return {
        "task": "language_model",
        "data": {
            "path": str(root / "data.parquet"),
            "columns": {"text": "text", "split": "split"},
            "max_length": LENGTH,
            "cache_dir": str(root / "data-cache"),
        },
        "teachers": [
            {"name": "big", "path": str(root / "teacher"), "wire": {"type": "hidden"}},
        ],
        "objective": {"type": "forward_kl"},
        "kd": {"temperature": 2.0, "alpha": 1.0},
        "student": {"path": str(root / "student")},
        "optimizer": {"lr": 1e-3},
        "trainer": {
            "engine": "torch",
            "epochs": EPOCHS,
            "batch_size": BATCH,
            "log_every": 1,
            "eval_every": 1_000_000,
            "checkpoint_every": 1_000_000,
            **trainer,
        },
        "generation": {"num_prompts": 0},
        "tracking": {"uri": f"sqlite:///{output}.db", "system_metrics": False},
        "output": str(output),
    }


def distill_seconds(root: Path, checkout: Path, name: str, **trainer: Any) -> dict[str, float]:
    """Medians of a run's steps in the first epoch and in the later ones."""
    output = root / name
    path = root / f"{name}.yaml"
    path.write_text(json.dumps(config(root, output, **trainer)))  # JSON is YAML
    start = "from distill.cli import main; main()"
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    command = [sys.executable, "-c", start, "train", str(path)]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    lines = map(json.loads, (output / "fit" / "metrics.jsonl").read_text().splitlines())
    times = [line["time"] for line in lines if "loss" in line["metrics"]]
    took = [after - before for before, after in pairwise(times)]
    steps = len(times) // EPOCHS
    # took[i] is of step i + 1.
    later = [took[i] for i in range(steps, len(took)) if (i + 1) % steps]
    return {"first": statistics.median(took[1 : steps - 1]), "later": statistics.median(later)}


def loop_seconds(steps: int) -> dict[str, float]:
    """Of a step with the teacher, and of the student alone; one after the other."""
    import torch
    import torch.nn.functional as F

    torch.manual_seed(0)
    teacher, student = llama(*TEACHER).eval(), llama(*STUDENT)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    ids = torch.randint(4, VOCAB, (BATCH, LENGTH))

    def step(with_teacher: bool) -> None:
        logits = student(ids).logits.flatten(0, 1)
        if with_teacher:
            with torch.no_grad():
                target = F.log_softmax(teacher(ids).logits.flatten(0, 1) / 2, -1)
            own = F.log_softmax(logits / 2, -1)
            loss = 4 * F.kl_div(own, target, log_target=True, reduction="batchmean")
        else:
            loss = F.cross_entropy(logits, ids.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return {
        "student": median_seconds(lambda: step(False), steps),
        "loop": median_seconds(lambda: step(True), steps),
    }


def median_seconds(step: Callable[[], None], steps: int) -> float:
    took = []
    for _ in range(steps + 2):
        started = time.perf_counter()
        step()
        took.append(time.perf_counter() - started)
    return statistics.median(took[2:])


def trl_seconds(root: Path, steps: int) -> float:
    """Of TRL's GKD trainer on the same models and tokens; runs in an interpreter that has trl."""
    import pyarrow.parquet as pq
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    took: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.started = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            took.append(time.perf_counter() - self.started)

    tokenizer = AutoTokenizer.from_pretrained(root / "teacher")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    rows = pq.read_table(root / "data.parquet").column("text").to_pylist()[: BATCH * (steps + 2)]
    words = [row.split() for row in rows]
    data = Dataset.from_list(
        [
            {
                "messages": [
                    {"role": "user", "content": " ".join(row[:8])},
                    {"role": "assistant", "content": " ".join(row[8:])},
                ]
            }
            for row in words
        ]
    )
    settings = GKDConfig(
        output_dir=str(root / "trl"),
        per_device_train_batch_size=BATCH,
        max_steps=steps + 2,
        max_length=LENGTH,
        lmbda=0.0,
        beta=0.0,
        temperature=2.0,
        learning_rate=1e-3,
        seq_kd=False,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_steps=1000,
    )
    GKDTrainer(
        model=AutoModelForCausalLM.from_pretrained(root / "student"),
        teacher_model=AutoModelForCausalLM.from_pretrained(root / "teacher"),
        args=settings,
        train_dataset=data,
        processing_class=tokenizer,
        callbacks=[Clock()],
    ).train()
    return statistics.median(took[2:])


def in_new_process(python: str, part: str, root: Path, steps: int) -> dict[str, float]:
    """A part of this script by itself; its last line is JSON."""
    command = [python, __file__, "--part", part, "--root", str(root), "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{part}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(args: argparse.Namespace, root: Path) -> dict[str, list[float]]:
    """Seconds of a step by name and round."""
    found: dict[str, list[float]] = {}

    def note(name: str, seconds: float) -> None:
        found.setdefault(name, []).append(round(seconds, 4))
        print(f"{name}: {seconds * 1e3:.0f} ms a step, {time.perf_counter() - STARTED:.0f} s in")

    for number in range(args.rounds):
        variants: list[tuple[str, Path, dict[str, Any]]] = [("now", ROOT, {})]
        if args.before:
            variants.insert(0, ("before", Path(args.before).resolve(), {}))
        if number == 0:
            variants.append(("same_threads", ROOT, {"num_threads_cached": None}))
        for name, checkout, trainer in variants:
            for part, seconds in distill_seconds(
                root, checkout, f"{name}-{number}", **trainer
            ).items():
                note(f"{name}.{part}", seconds)
        for name, seconds in in_new_process(sys.executable, "loop", root, 10).items():
            note(name, seconds)
        if args.trl:
            note("trl", in_new_process(args.trl, "trl", root, 10)["trl"])
    return found


def write(out: Path, args: argparse.Namespace, found: dict[str, list[float]]) -> None:
    import torch

    from distill import __version__

    medians = {name: statistics.median(seconds) for name, seconds in found.items()}
    result = {
        "date": date.today().isoformat(),
        "distill": __version__,
        "torch": torch.__version__,
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "environment": {k: v for k, v in os.environ.items() if k in WAITING},
        "rounds": args.rounds,
        "steps_per_epoch": args.steps,
        "seconds": found,
        "median_s": {name: round(seconds, 3) for name, seconds in medians.items()},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    lines = [
        "# Seconds of a distillation step on a CPU",
        "",
        f"Llama 512 × 8 to 192 × 4, 8 × 128 tokens, vocabulary 8,192, float32, wire hidden. "
        f"{os.cpu_count()} CPU cores, {date.today().isoformat()}, torch {torch.__version__}; "
        f"medians of {args.rounds} rounds in turn, epochs of {args.steps} steps.",
        "",
        "| | first epoch, ms | of the plain loop | later epochs, ms | of the student alone |",
        "|---|---|---|---|---|",
    ]
    loop, student = medians["loop"], medians["student"]
    for name, shown in NAMES.items():
        first = medians.get(f"{name}.first", medians.get(name))
        if first is None:
            continue
        later = medians.get(f"{name}.later", first)
        lines.append(
            f"| {shown} | {first * 1e3:.0f} | {first / loop:.2f} "
            f"| {later * 1e3:.0f} | {later / student:.2f} |"
        )
    out.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds of a distillation step on a CPU.")
    parser.add_argument("--before", help="another checkout of distill, to compare with")
    parser.add_argument("--trl", help="a Python interpreter that has trl 1.16")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=16, help="of an epoch")
    parser.add_argument("--results", default=str(ROOT / "benchmarks/results/step_time"))
    parser.add_argument("--part", choices=["loop", "trl"], help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part == "loop":
        print(json.dumps(loop_seconds(args.steps)))
    elif args.part == "trl":
        print(json.dumps({"trl": trl_seconds(args.root, args.steps)}))
    else:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write_inputs(root, args.steps)
            write(Path(args.results), args, measure(args, root))


STARTED = time.perf_counter()
if __name__ == "__main__":
    main()
