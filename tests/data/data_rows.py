"""Tiny rows in every format, and tiny tokenizers."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import feather, ipc, parquet
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

NUM_ROWS = 120
SPLITS = ("train", "train", "train", "transfer", "validation", "test")
WORDS = [
    "the",
    "film",
    "was",
    "good",
    "bad",
    "and",
    "a",
    "very",
    "long",
    "boring",
    "song",
    "about",
    "nothing",
    "at",
    "all",
]


def make_rows(num_rows: int = NUM_ROWS) -> list[dict[str, Any]]:
    return [
        {
            "text": f"row {i}, " + " ".join(WORDS[: 1 + (i * 7) % 15]) + " ü",
            "label": ("pos", "neg")[(i // 6) % 2],
            "domain": ("movies", "books", "news")[i % 3],
            "split": SPLITS[i % 6],
        }
        for i in range(num_rows)
    ]


def write(rows: list[dict[str, Any]], path: Path) -> Path:
    """``rows`` in the format that the ending of ``path`` names; no ending: a saved dataset."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path
    if path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
        return path
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return path
    table = pa.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
    elif path.suffix == ".feather":
        feather.write_feather(table, str(path), chunksize=7)
    elif path.suffix == ".arrow":
        with ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table, 7)
    else:
        write_saved(rows, path, class_names=None)
    return path


def write_saved(rows: list[dict[str, Any]], folder: Path, class_names: list[str] | None) -> None:
    """The folder that Hugging Face ``Dataset.save_to_disk`` writes, labels as ClassLabel."""
    folder.mkdir(parents=True, exist_ok=True)
    features: dict[str, Any] = {name: {"dtype": "string", "_type": "Value"} for name in rows[0]}
    if class_names is not None:
        features["label"] = {"names": class_names, "_type": "ClassLabel"}
        rows = [
            {**r, "label": class_names.index(r["label"]) if r["label"] in class_names else -1}
            for r in rows
        ]
    half = len(rows) // 2
    files = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    for name, part in zip(files, (rows[:half], rows[half:]), strict=True):
        table = pa.Table.from_pylist(part)
        with ipc.new_stream(str(folder / name), table.schema) as writer:
            writer.write_table(table, 11)
    (folder / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": name} for name in files], "_split": None})
    )
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))


def write_saved_dict(rows: list[dict[str, Any]], folder: Path, class_names: list[str]) -> None:
    """A saved DatasetDict: a subfolder for each split, and no split column."""
    names = list(dict.fromkeys(row["split"] for row in rows))
    for name in names:
        part = [
            {k: v for k, v in row.items() if k != "split"} for row in rows if row["split"] == name
        ]
        write_saved(part, folder / name, class_names)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": names}))


def save_tokenizer(folder: Path, pad: str | None = "[PAD]") -> Path:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([row["text"] for row in make_rows()], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token=pad,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    fast.save_pretrained(str(folder))
    return folder
