"""Memory and speed of making blocks of a language model's data, for data of growing size.

    python benchmarks/lm_streaming.py [--mb 20 200] [--max-length 1024] [--out FILE]

For each size a Parquet file of random words (documents of 0.2 to 20 kB, two domains, row groups of
1,000) is made into a corpus and blocks in a process of its own. Memory is that process's peak of
resident memory, less what it has after its imports and with the tokenizer loaded (Linux).
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
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

VOCAB_SIZE = 4096
NUM_WORDS = 20_000
GROUP = 1000  # documents of a row group


def documents(num_bytes: int, seed: int = 0) -> Iterator[list[dict[str, str]]]:
    """Row groups; words have the frequencies of Zipf's law."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlu"))
    words = np.array(["".join(rng.choice(letters, rng.integers(2, 10))) for _ in range(NUM_WORDS)])
    probabilities = 1 / np.arange(1, NUM_WORDS + 1)
    probabilities /= probabilities.sum()
    done = 0
    while done < num_bytes:
        rows = []
        for i in range(GROUP):
            size = int(np.exp(rng.uniform(np.log(30), np.log(3000))))
            text = " ".join(rng.choice(words, size, p=probabilities))
            split = ("validation", "test")[i % 2] if i < 20 else "train"
            rows.append({"text": text, "domain": "ab"[i % 3 == 0], "split": split})
            done += len(text)
        yield rows


def write_data(folder: Path, num_mb: int) -> None:
    writer = None
    for rows in documents(num_mb * 10**6):
        table = pa.Table.from_pylist(rows)
        writer = writer or parquet.ParquetWriter(folder / "text.parquet", table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=["<pad>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sample = [row["text"] for row in next(documents(1))]
    tokenizer.train_from_iterator(sample, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
    fast.save_pretrained(str(folder))


def resident_mb(field: str) -> float:
    """VmRSS: now; VmHWM: at its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError(field)


def build(folder: Path, tokenizer_folder: Path, max_length: int) -> None:
    """In a process of its own: prints one line of JSON."""
    from distill.config import Data
    from distill.data import build_blocks, build_corpus, tokenizer_fingerprint
    from distill.data.content import DocumentContent

    tokenizer_fingerprint(tokenizer_folder)  # what is imported late is imported now
    settings = {
        "path": str(folder / "text.parquet"),
        "columns": {"domain": "domain", "split": "split"},
        "cache_dir": str(folder / "cache"),
    }
    before = resident_mb("VmRSS")
    started = time.perf_counter()
    corpus = build_corpus(Data.model_validate(settings), content=DocumentContent)
    corpus_s, corpus_mb = time.perf_counter() - started, resident_mb("VmHWM") - before
    started = time.perf_counter()
    blocks = build_blocks(corpus, tokenizer_folder, max_length)
    blocks_s, peak_mb = time.perf_counter() - started, resident_mb("VmHWM") - before
    found = {
        "documents": corpus.num_rows,
        "tokens": blocks.num_tokens,
        "blocks": blocks.num_rows,
        "fill": round(blocks.fill, 4),
        "memory_after_imports_mb": round(before, 1),
        "peak_over_it_corpus_mb": round(corpus_mb, 1),
        "peak_over_it_mb": round(peak_mb, 1),
        "corpus_s": round(corpus_s, 2),
        "blocks_s": round(blocks_s, 2),
    }
    print(json.dumps(found))


def measure(num_mb: int, max_length: int) -> dict:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, num_mb)
        save_tokenizer(folder / "tokenizer")
        command = [sys.executable, __file__, "--inside", name, "--max-length", str(max_length)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        seconds = found["corpus_s"] + found["blocks_s"]
        parquet_mb = (folder / "text.parquet").stat().st_size / 1e6
    return {
        "text_mb": num_mb,
        "parquet_mb": round(parquet_mb, 1),
        **found,
        "text_mb_per_s": round(num_mb / seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="memory of making blocks, by size of the data")
    parser.add_argument("--mb", type=int, nargs="+", default=[20, 200], help="of text")
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    out = Path(__file__).parent / "results" / "lm_streaming.json"
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    if arguments.inside is not None:
        build(arguments.inside, arguments.inside / "tokenizer", arguments.max_length)
        return
    load = round(os.getloadavg()[0], 2)
    cases = []
    for num_mb in arguments.mb:
        cases.append(measure(num_mb, arguments.max_length))
        print(json.dumps(cases[-1]), flush=True)
    report = {
        "date": date.today().isoformat(),
        "versions": {"python": platform.python_version(), "pyarrow": pa.__version__},
        "machine": {
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "load_average_before": load,
        },
        "max_length": arguments.max_length,
        "cases": cases,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
