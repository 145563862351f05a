"""The exported student: a Hugging Face folder with a model card. One that reads text needs no
distill to load; one of features needs its class, distill.models.features."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from distill import __version__
from distill.data.chat_template import ChatFormat
from distill.errors import RunFolderError
from distill.models.decoder import head_of, is_causal
from distill.models.features import FeatureClassifier
from distill.models.greedy import end_ids
from distill.models.language_student import merged
from distill.models.load import usable_positions
from distill.models.pooling import set_published_pad_id
from distill.models.reading import Reading, reading_of, remember
from distill.models.tokenizer import load_tokenizer, quiet

USE_TEXT = """\
```python
from transformers import pipeline

classify = pipeline("text-classification", model="path/to/this/folder")
classify("some text", truncation=True)
```
"""
USE_PAIRS = USE_TEXT.replace(
    'classify("some text", ', 'classify({"text": "one text", "text_pair": "another"}, '
)
USE_LANGUAGE = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = AutoModelForCausalLM.from_pretrained("path/to/this/folder").eval()
{inputs}
outputs = model.generate(**inputs, max_new_tokens=64, do_sample=False)
tokenizer.decode(outputs[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
```
"""
TEXT_INPUTS = 'inputs = tokenizer("Once upon a time", return_tensors="pt")'
CHAT_INPUTS = """\
chat = [{"role": "user", "content": "Tell me a story."}]
inputs = tokenizer.apply_chat_template(
    chat, add_generation_prompt=True, return_dict=True, return_tensors="pt"{arguments}
)"""
USE_FEATURES = """\
```python
import torch
from transformers import AutoModelForSequenceClassification

import distill.models.features  # the class of the model

model = AutoModelForSequenceClassification.from_pretrained("path/to/this/folder").eval()
logits = model(features=torch.tensor(rows)).logits  # rows: lists of {columns}
```

The numbers are given raw: the standardisation is a part of the model.
"""


@dataclass(frozen=True)
class ModelCard:
    """The origin of a model on its card; size and labels are read from the model itself.

    None and () do not apply (an expert has no teachers) and are left out.
    """

    name: str
    teachers: tuple[str, ...] = ()
    aggregation: str | None = None
    objective: str | None = None
    temperature: float | None = None
    schedule: str | None = None
    """Of the temperature, where it is not constant: ``cosine, 1 to 3``."""
    alpha: float | None = None
    data_fingerprint: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)  # e.g. {"test.accuracy": 0.91}
    distill_version: str = __version__
    date: str = field(default_factory=lambda: date.today().isoformat())


def export(
    model: Any,
    tokenizer_folder: str | Path,
    out: str | Path,
    card: ModelCard,
    reading: Reading | None = None,
    chat: ChatFormat | None = None,
) -> None:
    """Write float32 safetensors, config, tokenizer and README.md into ``out``, replacing it.

    A language model's generation settings are written too. Low-rank updates (of a peft model) are
    merged; a head that is tied to the embeddings is stored once.

    A model of features has no tokenizer: ``tokenizer_folder`` is not read. ``reading``: length,
    truncation and pairs of a text classifier's rows, by which ``distill evaluate`` and ``predict``
    read theirs. ``chat``: the format of a chat model's rows: its template is written into the
    tokenizer, and generation ends where an answer ends.

    Written atomically: into a folder next to ``out``, which is then renamed. A crash between two
    renames leaves the old export as ``.<name>.previous``. The tokenizer's model_max_length becomes
    the model's. Raises RunFolderError for a folder that holds no model.
    """
    out = Path(out)
    refuse_other_files(out)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a crash
    partial.mkdir(parents=True)

    exported: Any = merged(model)
    if exported is model:
        exported = copy.deepcopy(model)  # the one in training keeps its device and dtype
    exported.to(device="cpu", dtype=torch.float32).eval()
    if reading is not None:
        remember(exported.config, reading)
    if chat is not None:
        _end_with_answers(exported, load_tokenizer(tokenizer_folder), chat.turn_ends)
    if not isinstance(exported, FeatureClassifier):
        tokenizer = load_tokenizer(tokenizer_folder)
        set_published_pad_id(exported, tokenizer)
        if chat is not None:
            chat.template.put_into(tokenizer)
        tokenizer.model_max_length = usable_positions(exported.config)
        if reading is not None and reading.cut == "tail":
            tokenizer.truncation_side = "left"  # for truncation by transformers alone
        tokenizer.save_pretrained(partial)
    with quiet():
        exported.save_pretrained(partial, max_shard_size="100GB")
    arguments = {} if chat is None else chat.template.values
    readme = _readme(card, exported, partial, arguments)
    (partial / "README.md").write_text(readme, encoding="utf-8")
    for file in partial.iterdir():
        _sync(file)  # or a power cut could leave the new name on empty files
    _sync(partial)

    swap_in(partial, out)


def _end_with_answers(model: Any, tokenizer: Any, turn_ends: Sequence[int]) -> None:
    """generation_config.json names every token that ends an answer."""
    ends = list(end_ids(model, tokenizer, turn_ends))
    own = model.generation_config.eos_token_id
    if ends and ends != (sorted(own) if isinstance(own, list) else [own]):
        model.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]


def export_adapter(model: Any, out: str | Path) -> None:
    """A peft model's low-rank updates alone, as its save_pretrained writes them; ``out`` must not
    exist."""
    out = Path(out)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    # Without embeddings, which no update changes: peft would query the hub for their size.
    model.save_pretrained(str(partial), save_embedding_layers=False)
    for file in partial.iterdir():
        _sync(file)
    _sync(partial)
    swap_in(partial, out)


def copy_export(source: str | Path, out: str | Path) -> None:
    """A copy of an exported folder, written atomically. RunFolderError where there is none."""
    source, out = Path(source), Path(out)
    if not (source / "model.safetensors").is_file():
        raise RunFolderError(
            f"{source} holds no exported student: give the output folder of a finished train"
        )
    refuse_other_files(out)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial)
    swap_in(partial, out)


def refuse_other_files(out: Path) -> None:
    """RunFolderError for a folder that holds something else, which would be replaced."""
    if out.exists() and not (out / "config.json").is_file() and any(out.iterdir()):
        raise RunFolderError(
            f"{out} has files that are not those of an exported model: use another folder"
        )


def swap_in(partial: Path, out: Path) -> None:
    """Rename a finished folder to ``out``, and only then delete what was there."""
    previous = out.with_name(f".{out.name}.previous")
    shutil.rmtree(previous, ignore_errors=True)
    if out.exists():
        out.rename(previous)
    partial.rename(out)
    _sync(out.parent)
    shutil.rmtree(previous, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _readme(
    card: ModelCard, model: PreTrainedModel, folder: Path, arguments: Mapping[str, Any]
) -> str:
    size_mb = (folder / "model.safetensors").stat().st_size / 1e6
    reading = reading_of(model.config, folder)
    rows = {
        "Teachers": ", ".join(card.teachers),
        "Aggregation": card.aggregation,
        "Objective": card.objective,
        "Temperature": card.temperature,
        "Temperature schedule": card.schedule,
        "Alpha (weight of the soft target)": card.alpha,
        **_shows(model),
        "Reads": reading,
        "Parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "Size": f"{size_mb:.2f} MB (float32 safetensors)",
        "Data fingerprint": card.data_fingerprint,
        "Written": f"{card.date}, distill {card.distill_version}",
    } | {name: f"{value:.4f}" for name, value in card.metrics.items()}
    lines = [f"| {_cell(k)} | {_cell(v)} |" for k, v in rows.items() if v not in (None, "")]
    about = "\n".join(lines)
    kind, what, use = _kind(model, folder, reading, arguments)
    origin = f"distilled from {len(card.teachers)} teacher(s)" if card.teachers else "fine-tuned"
    return f"""\
---
library_name: transformers
pipeline_tag: {kind}
tags:
- {"knowledge-distillation" if card.teachers else kind}
---

# {card.name}

A {what}, {origin} with distill.

| | |
|---|---|
{about}

## Use

{use}"""


def _shows(model: PreTrainedModel) -> dict[str, object]:
    """Vocabulary and positions of a language model, labels of a classifier."""
    if is_causal(model):
        return {
            "Vocabulary": f"{head_of(model).out_features:,} tokens",
            "Positions": usable_positions(model.config),
        }
    id2label: Any = model.config.id2label
    return {"Labels": ", ".join(id2label[index] for index in sorted(id2label))}


def _kind(
    model: PreTrainedModel, folder: Path, reading: Reading | None, arguments: Mapping[str, Any]
) -> tuple[str, str, str]:
    """The pipeline's name, a description of the model, and code that uses it."""
    if isinstance(model, FeatureClassifier):
        use = USE_FEATURES.format(columns=_columns(model.config))
        return "tabular-classification", "classifier of numbers", use
    if is_causal(model):
        is_chat = bool(load_tokenizer(folder).chat_template)
        given = f",\n    **{dict(arguments)!r},  # as in training" if arguments else ""
        chat_inputs = CHAT_INPUTS.replace("{arguments}", given)
        use = USE_LANGUAGE.format(inputs=chat_inputs if is_chat else TEXT_INPUTS)
        return "text-generation", "language model", use
    is_pair = reading is not None and reading.is_pair
    return "text-classification", "text classifier", USE_PAIRS if is_pair else USE_TEXT


def _columns(config: Any) -> str:
    names = ", ".join(map(str, config.columns))
    order = (
        ""
        if config.image is None
        else ", an image of {} × {} × {} row by row".format(*config.image)
    )
    return f"{config.num_features} numbers ({names}{order})"


def _cell(value: object) -> str:
    """Inside a Markdown table."""
    return str(value).replace("|", "\\|").replace("\n", " ")
