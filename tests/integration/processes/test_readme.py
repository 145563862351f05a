"""Every command, configuration and Python block of README.md runs, in the order of the page.

On tiny models and data with the names that the page uses. Left out: ``make`` and ``pip``, which set
the environment up, and the cluster's command, whose folder is on shared storage.
"""

from __future__ import annotations

import csv
import json
import pickle
import shlex
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from typer.testing import CliRunner

from distill.cli import app
from distill.cluster.connect import connect
from distill.config import Cluster
from distill.models.tokenizer import load_tokenizer
from tests.docs.pages import ROOT, Block, blocks
from tests.toys import WORDS, write_data, write_encoder
from tests.toys_language import write_llama

pytestmark = pytest.mark.slow

NAMES = {"text": "body", "label": "sentiment", "domain": "shop"}
CHATML = (
    "{% for m in messages %}{{ m['role'] + ' ' + m['content'] + '<eos>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant ' }}{% endif %}"
)
SMALLER = {
    "max_length: 48": "max_length: 16",
    "high: 10": "high: 0.9",
    "num_trials: 30": "num_trials: 2",
}
"""Of the page's configurations: for toys that read 24 tokens, and for the time."""
OVERRIDES = ', overrides={"kd.alpha": 0.9, "output": "runs/alpha-0.9"}'
"""Of the page's Python: without them the run is finished, and no second one is trained."""


def test_every_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write_files(tmp_path)
    with connect(Cluster(num_cpus=2)):  # one for all commands; its workers start in this folder
        ran = follow(tmp_path)
    assert {line.split()[1] for line in ran} >= {
        *("init", "check", "preview", "train", "predict", "export"),
        *("sweep", "report", "frontier", "evaluate"),
    }
    assert (tmp_path / "predicted.csv").is_file()
    assert (tmp_path / "small" / "model.safetensors").is_file()


def follow(folder: Path) -> list[str]:
    ran: list[str] = []
    page = blocks(ROOT / "README.md", "sh", "yaml", "python")
    (classifiers,) = (b for b in page if b.language == "yaml" and b.text.startswith("data:"))
    for block in page:
        if block.language == "yaml":
            configure(folder, block)
        elif block.language == "python":
            assert OVERRIDES in block.text
            exec(block.text.replace(OVERRIDES, ""), {})
        for line in commands(block) if block.language == "sh" else ():
            ran.append(line)
            run(line)
            if line.startswith("distill init reviews.csv"):
                configure(folder, classifiers)  # as the page says: edit what init wrote
    return ran


def commands(block: Block) -> list[str]:
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("distill ") and "/mnt/" not in line]


def run(line: str) -> None:
    result = CliRunner().invoke(app, shlex.split(line, comments=True)[1:])
    allowed = (0, 1) if "--fail-if" in line else (0,)  # a gate may hold for a toy
    assert result.exit_code in allowed, f"{line}\n{result.output}"


def configure(folder: Path, block: Block) -> None:
    """The search is added to the classifiers' configuration. The language model's is for GPUs:
    there the file that init wrote is used."""
    text = block.text
    for before, after in SMALLER.items():
        text = text.replace(before, after)
    path = folder / "reviews.yaml"
    if text.startswith("data:"):
        path.write_text(text)
    elif text.startswith("search:"):
        path.write_text(path.read_text() + text)
    else:
        assert text.startswith("task: language_model")


def write_files(folder: Path) -> None:
    rows = pq.read_table(write_data(folder / "toy.parquet")).to_pylist()
    (folder / "toy.parquet").unlink()
    named: list[dict[str, Any]] = [{NAMES[key]: row[key] for key in NAMES} for row in rows]
    labelled, held_out = named[:360], named[360:]
    texts, labels = [r["body"] for r in labelled], [r["sentiment"] for r in labelled]
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, labels)
    (folder / "tfidf.pkl").write_bytes(pickle.dumps(pipeline))
    unlabelled = [row | {"sentiment": ""} for row in labelled[::3]]
    write_csv(folder / "reviews.csv", [*labelled[1::3], *labelled[2::3], *unlabelled])
    write_csv(folder / "held-out.csv", held_out)
    write_csv(folder / "new.csv", [{"body": row["body"]} for row in held_out[:20]])
    for seed, name in enumerate(("movies", "products")):
        write_encoder(folder / "models" / name, num_labels=2, seed=seed)
    write_llama(folder / "models/big")
    tokenizer = load_tokenizer(folder / "models/big")
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder / "models/big")
    chats = [
        [{"role": "user", "content": f"the {a}"}, {"role": "assistant", "content": f"{b} {a}"}]
        for a in WORDS
        for b in WORDS[:6]
    ]
    lines = [json.dumps({"messages": chat}) for chat in chats]
    (folder / "chats.jsonl").write_text("\n".join(lines))


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
