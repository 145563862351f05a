"""``distill init``: a commented configuration from a data file and model folders.

Nothing is asked. What the files and folders do not show is in the configuration as a comment
with the alternatives, or as FILL IN where nothing runs without it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.config import parse
from distill.config.yaml_text import read_yaml, write_yaml
from distill.data.file_format import COMPRESSIONS
from distill.data.formats import ENDINGS
from distill.data.source import listed
from distill.errors import ConfigError
from distill.init.choices import (
    Choices,
    batch_size,
    choose,
    student_of,
    take_length,
)
from distill.init.matching import label_map
from distill.init.models import Model, read_models
from distill.init.rows import Table, open_table

FILL_IN = "FILL/IN/path/to/model"


@dataclass(frozen=True)
class Start:
    """A configuration that is not yet written."""

    name: str
    """Of the data: the default file is ``<name>.yaml``."""
    text: str
    findings: list[str]
    """What was found, in lines for the screen."""
    open_points: list[str]
    """Keys that a person has to fill in before ``distill check`` can pass."""
    guesses: list[str]
    """Keys whose value is a guess that ``distill check`` cannot verify."""


def initial(data: str, models: Sequence[str] = ()) -> Start:
    """The configuration for ``data`` (a path as in ``data.path``) and these models.

    Raises DataError, ModelError or ConfigError for what cannot be used.
    """
    known = read_models(models)
    table = open_table(data)
    found = choose(table, known)
    folder = next((model.folder for model in known if model.folder), None)
    tokenizer = None
    if folder is not None and "features" not in found.columns:
        from distill.models.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(folder)
        take_length(found, known, tokenizer)
    name = _stem(data)
    lines = [
        f"# Written by distill init for {data}. Check it: distill check {name}.yaml",
        "# Every key: distill schema, and the configuration reference.",
    ]
    lines += found.task.head
    lines += _data(data, found, table, known)
    lines += _teachers(found, known)
    lines += _student(found, known, tokenizer)
    lines += _training(found, known)
    text = "\n".join(map(_one_line, lines)) + "\n"
    # Whatever the rows hold, the file can be read again.
    parse({"output": f"runs/{name}"} | read_yaml(text), source="distill init")
    return Start(name, text, _findings(found, known), found.open_points, found.guesses)


def write(start: Start, out: Path | None) -> Path:
    """Raises ConfigError for a file that is there already."""
    path = out or Path(f"{start.name}.yaml")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(start.text.replace(f"{start.name}.yaml", str(path), 1))
    except FileExistsError:
        raise ConfigError(
            f"{path} already exists and is not overwritten: give another file with --out"
        ) from None
    return path


def _data(path: str, found: Choices, table: Table, models: Sequence[Model]) -> list[str]:
    contents, columns = found.contents, found.columns
    lines = ["", "data:", f"  path: {_scalar(path)}"]
    for key in ("label", "text", "prompt", "messages", "features", "domain", "split"):
        if note := found.notes.get(key):
            lines.append(f"  # {note}")
    unread = [n for n in table.columns if n not in _named(columns)]
    if unread:
        lines.append(f"  # not read: {listed(unread)}")
    lines.append(f"  columns: {_flow(columns)}")
    if "prompt" in columns and any(model.has_chat_template for model in models):
        lines.append(
            "  # The model has a chat template, so prompts and completions are rendered as"
        )
        lines.append("  # messages of user and assistant. false: plain text.")
        lines.append("  prompt_as_chat: true")
    if found.splits:
        names = {split: value for value, split in found.splits.items()}
        lines.append(f"  splits: {_flow(names)}")
    if found.split_source == "cut":
        lines.append("  # No column or file name assigns rows to validation and test:")
        lines.append("  # both are chosen by a hash of the text, so they stay the same.")
        lines.append("  holdout: {validation: 0.1, test: 0.1}")
    elif found.split_source == "files":
        shown = ", ".join(f"{file.below}: {file.split}" for file in table.files[:6])
        lines.append(f"  # splits from the file names: {shown}")
    if "label" in columns:
        names = contents.label_names
        lines.append(f"  # labels: {listed(names)}")
        if contents.num_unlabelled and names:
            lines += [
                f"  # {contents.num_unlabelled:,} rows have no label: the student is trained on "
                "the",
                "  # teachers' outputs for them. drop: drop these rows; error: refuse the data.",
                "  unlabelled: transfer",
            ]
    lines += found.task.data(contents)
    if found.max_length is not None:
        lines.append(f"  # {found.notes['max_length']}")
        lines.append(f"  max_length: {found.max_length}")
    elif "features" not in columns:
        lines.append(
            "  # max_length: 128  # maximum tokens of a row; not known without a tokenizer"
        )
    return lines


def _teachers(found: Choices, models: Sequence[Model]) -> list[str]:
    if models and models[0].kind == "encoder":
        return _experts(found, models[0].path)
    if not models:
        return _no_teachers(found)
    lines = ["", "teachers:"]
    if any(model.has_small_hidden for model in models):
        lines.append(
            "  # wire hidden: the last hidden states are sent, from which the student's side"
        )
        lines.append("  # computes the same logits; much smaller.")
    for model in models:
        lines += _teacher(found, model)
    if len(models) > 1:
        lines.append(f"# How the teachers are combined; also: {found.task.aggregations}")
        lines.append("aggregation: {type: mean}")
    return lines


def _no_teachers(found: Choices) -> list[str]:
    """Experts, or a place for the teachers."""
    lines = [
        "",
        "# No model was given. Train experts from the model in base, or",
        "# list trained models instead:",
        "# teachers:",
        "#   - {name: first, path: path/to/model}",
    ]
    if "features" in found.columns:
        found.open_points.append("teachers")
        return [*lines, "# FILL IN: features need trained models (pickles, folders)."]
    if not found.task.can_cluster and "domain" not in found.columns:
        found.open_points.append("teachers")
        note = "# FILL IN: the folder of the language model to distil."
        return ["", note, "teachers:", f"  - {_flow({'name': 'teacher', 'path': FILL_IN})}"]
    return [*lines, *_experts(found, FILL_IN)[1:]]


def _teacher(found: Choices, model: Model) -> list[str]:
    """One entry, and comments above it."""
    lines: list[str] = []
    if model.kind == "pickle":
        lines.append("  # A pickle can run code when it is loaded; allow_pickle permits it. Keep")
        lines.append("  # it only for files that you trust.")
    entry: dict[str, Any] = {"name": model.name, "path": model.base or model.path}
    if model.kind == "adapter":
        entry["adapter"] = model.path
    if model.kind == "pickle":
        entry["allow_pickle"] = True
    if model.has_small_hidden:
        entry["wire"] = {"type": "hidden"}
    mapped = label_map(
        model, found.contents.label_names, found.contents.texts, found.max_length or 128
    )
    if mapped is not None:
        entry["labels"] = mapped.labels
        if mapped.agreement is None:
            found.guesses.append(f"teachers.{model.name}.labels")
            lines.append(
                "  # CHECK labels: the model's label names differ from those of the data, and"
            )
            lines.append(
                "  # its predictions did not determine the mapping; both are in sorted order."
            )
        else:
            lines.append("  # labels: mapped by the model's own predictions; these equal the")
            lines.append(f"  # labels of {mapped.agreement:.0%} of the rows that were read.")
    return [*lines, f"  - {_flow(entry)}"]


def _experts(found: Choices, base: str) -> list[str]:
    lines = ["", "# One expert for each domain is fine-tuned from base.", "experts:"]
    if base == FILL_IN:
        found.open_points.append("experts.base")
        what = found.task.base
        lines.append(
            f"  # FILL IN: the folder of {what}, the initial model of every expert, such as"
        )
        lines.append("  # one written by `hf download NAME --local-dir FOLDER`")
    lines.append(f"  base: {_scalar(base)}")
    if "domain" in found.columns:
        lines.append("  partition: {type: column}")
        smallest = min(found.contents.domains[n] for n in found.contents.domains if n is not None)
        lines.append(f"  batch_size: {batch_size(smallest * found.train_share * 2, 16)}")
    else:
        lines.append(
            "  # No domain column was found: the rows are clustered. With one: {type: column}"
        )
        lines.append("  partition: {type: kmeans, num_clusters: 4}")
        lines.append(f"  batch_size: {batch_size(found.num_train / 8, 16)}")
    return lines


def _student(found: Choices, models: Sequence[Model], tokenizer: Any) -> list[str]:
    lines = [""]
    if "features" in found.columns:
        lines.append("# A multilayer perceptron; for images: family: cnn and data.image.")
        return (
            [*lines, f"student: {_flow(student_of(found, models, None))}"]
            if models
            else [
                *lines,
                "student: {layers: 2, hidden: 64}",
            ]
        )
    if tokenizer is None:
        lines.append("# Also: size_mb (largest file in MB), layers and hidden, or init_from.")
        if models:
            found.open_points.append("student.tokenizer")
            lines.append("# FILL IN tokenizer: pickles have none, so set a tokenizer folder.")
            return [*lines, f"student: {_flow({'scale': 'tiny', 'tokenizer': FILL_IN})}"]
        return [*lines, "student: {scale: tiny}"]
    student = student_of(found, models, tokenizer)
    largest = max(model.num_params for model in models) * 4e-6
    if "init_from" in student:
        lines.append(f"# The largest model has {largest:,.1f} MB (float32) and twice the layers.")
        lines.append("# Also: size_mb, for a student with random initial weights.")
    elif "size_mb" in student:
        ratio = largest / student["size_mb"]
        lines.append(
            f"# The largest model has {largest:,.3g} MB (float32), {ratio:.3g} times as much."
        )
        lines.append("# Also: scale, layers and hidden, or init_from {path, layers}.")
        if "vocab_size" in student:
            lines.append(
                "# vocab_size: retrain the tokenizer, since embeddings take most of the size."
            )
    lines.append(f"student: {_flow(student)}")
    return lines


def _training(found: Choices, models: Sequence[Model]) -> list[str]:
    size = batch_size(found.num_train, found.task.batch_size)
    lines = ["", "# temperature flattens the distributions; alpha is the weight of the teachers."]
    lines.append("kd: {temperature: 2.0, alpha: 0.7}")
    lines += found.task.optimizer(models)
    lines.append(f"trainer: {{epochs: 3, batch_size: {size}}}")
    return lines + found.task.baselines()


def _findings(found: Choices, models: Sequence[Model]) -> list[str]:
    contents = found.contents
    columns = ", ".join(f"{k}: {_short(v)}" for k, v in found.columns.items())
    lines = [f"task      {found.task.name}", f"columns   {columns}"]
    if contents.label_names:
        text = listed(contents.label_names)
        if contents.num_unlabelled:
            text += f" ({contents.num_unlabelled:,} rows without a label)"
        lines.append(f"labels    {text}")
    splits = {"column": "by column", "files": "by file names", "cut": "by a hash"}
    lines.append(f"splits    {splits[found.split_source]}")
    lines += [f"model     {m.name}: {m.kind.replace('_', ' ')}, {m.path}" for m in models]
    lines += [f"FILL IN   {key}" for key in found.open_points]
    lines += [f"CHECK     {key}: a guess" for key in found.guesses]
    return lines


def _short(value: Any) -> str:
    return value if isinstance(value, str) else f"{len(value)} columns"


def _named(columns: dict[str, Any]) -> set[str]:
    names: set[str] = set()
    for value in columns.values():
        names |= {value} if isinstance(value, str) else set(value)
    return names


def _stem(path: str) -> str:
    """A name for the experiment: the file's, or of a glob its folder's."""
    parts = [p for p in re.split(r"[/\\]", path) if p and not re.search(r"[*?\[]", p)]
    name = parts[-1] if parts else "experiment"
    known = (*(end for ends in ENDINGS.values() for end in ends), *COMPRESSIONS)
    while name.lower().endswith(known) and "." in name:
        name = name.rpartition(".")[0]
    return re.sub(r"[^\w.-]+", "-", name).strip(".-") or "experiment"


def _one_line(line: str) -> str:
    """A comment without the ends of line that names in the data hold: the rest would be keys."""
    if not line.lstrip().startswith("#"):
        return line
    return "".join(char if char.isprintable() else " " for char in line)


def _flow(value: Any) -> str:
    text = write_yaml(value, default_flow_style=True, allow_unicode=True, width=float("inf"))
    return text.strip()


def _scalar(value: str) -> str:
    return _flow([value])[1:-1]
