"""A classifier as an ONNX file: exported by torch, checked by onnxruntime on the run's test rows.

Optionally a second file with weights in 8 bits. Quality, size and latency of each are measured
compared with the float model's.

Shape suffixes: B rows of a batch, R all rows, C classes.
"""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill import __version__
from distill.config import Columns, Data
from distill.data.corpus import Corpus, build_corpus
from distill.errors import ConfigError, DataError, ModelError
from distill.evaluation.efficiency import latency_ms
from distill.evaluation.samples import read_samples
from distill.export.classifier import Classifier
from distill.export.folder import refuse_other_files, swap_in
from distill.export.kinds import kind_of
from distill.export.locate import Located
from distill.export.request import ExportProgress
from distill.models.features import FeatureClassifier
from distill.models.load import load_classifier
from distill.models.reading import reading_of
from distill.models.weights import brief
from distill.records import UNLABELLED

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
FLOAT, INT8 = "model.onnx", "model.int8.onnx"
TOLERANCE = 1e-3
"""Largest difference of a probability between the float file and torch."""
MAX_INLINE_BYTES = 1_500_000_000
"""Weights above it go into a file of their own: a protobuf holds 2 GB at most."""

Forward = Callable[[dict[str, torch.Tensor]], np.ndarray]


@dataclass(frozen=True)
class Measured:
    """One form of the student."""

    file: str
    accuracy: float | None
    """On labelled rows of the test split; None where there are none."""
    agreement: float
    """Share of rows with the label that the float model in torch predicts."""
    size_mb: float
    """10⁶ bytes of the file."""
    latency_ms: float
    """Median of one row alone on one CPU thread."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    rows: tuple[Measured, ...]
    """The float model in torch first."""
    num_rows: int
    """Test rows that were measured."""
    sequence: str
    """What a latency is of."""


def check_installed() -> None:
    """Raises ConfigError that names the packages that are missing."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--format onnx needs {' and '.join(missing)}, not installed here: pip install "
            "'distill[onnx]'"
        )


def export_onnx(
    student: Located, out: str | Path, is_int8: bool, data: str | None, progress: ExportProgress
) -> Exported:
    """Write the ONNX file, the tokenizer, the label names, README.md and export.json into ``out``.

    ``data``: a file of labelled rows instead of the run's test split. Everything is measured before
    the folder is renamed to ``out``. Raises ModelError for a language model, a model that torch
    cannot export, or one whose file gives different outputs from the model.
    """
    out = Path(out)
    _check(student)
    refuse_other_files(out)
    model = load_classifier(student.folder)
    classifier = Classifier(model, str(student.folder), device="cpu")
    corpus = _corpus(student, model, data)
    rows, labels_R = _rows(corpus, classifier)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        progress.say("exporting to ONNX")
        inputs = classifier.inputs(rows, _longest(rows))
        _write(model, inputs, partial / FLOAT)
        if is_int8:
            progress.say("quantising to 8 bits")
            _quantise(partial / FLOAT, partial / INT8)
        exported = _measured(student, classifier, rows, labels_R, partial, progress)
        exported = Exported(out, exported.rows, exported.num_rows, exported.sequence)
        _accompany(student, classifier, list(inputs), exported, partial)
        swap_in(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return exported


def _check(student: Located) -> None:
    check_installed()
    kind_of(student.folder).check_onnx(student)


# ---- the rows --------------------------------------------------------------------------------


def _corpus(student: Located, model: Any, data: str | None) -> Corpus:
    """The run's rows under the student's labels."""
    experiment = student.experiment
    if experiment is None:
        raise ConfigError(
            f"{student.folder} is not in a run folder, whose test rows are needed for the "
            "comparison: give the run folder, a student in it, or --data"
        )
    names = tuple(str(model.config.id2label[i]) for i in range(len(model.config.id2label)))
    if data is None:
        return build_corpus(experiment.data, experiment.seed, labels=names)
    columns = experiment.data.columns.model_dump() | {"split": None, "domain": None}
    named = Data(
        path=data,
        columns=Columns.model_validate(columns),
        cache_dir=experiment.data.cache_dir,
    )
    return build_corpus(named, experiment.seed, labels=names, only="test")


def _rows(corpus: Corpus, classifier: Classifier) -> tuple[Any, np.ndarray]:
    """As the classifier takes them, and their labels, UNLABELLED where there is none."""
    samples = read_samples(corpus, corpus.rows("test"))
    if not samples:
        raise DataError("the test split has no rows for the comparison: give some with --data")
    labels_R = np.array([sample.label for sample in samples])
    if isinstance(classifier.model, FeatureClassifier):
        features: Any = [sample.features_D for sample in samples]
        return np.stack(features).astype(np.float32), labels_R
    return [(sample.text, sample.pair) for sample in samples], labels_R


def _longest(rows: Any) -> list[int]:
    """Two rows to trace with: more than one row, and more than one token."""
    if isinstance(rows, np.ndarray):
        return [0, len(rows) - 1]
    by_size = sorted(range(len(rows)), key=lambda row: -sum(len(t or "") for t in rows[row]))
    return [by_size[0], by_size[min(1, len(by_size) - 1)]]


# ---- the files -------------------------------------------------------------------------------


class _Logits(torch.nn.Module):
    """A model as a function of tensors alone."""

    def __init__(self, model: Any, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.model(**dict(zip(self.names, inputs, strict=True))).logits


def _write(model: Any, inputs: Mapping[str, torch.Tensor], path: Path) -> None:
    names = list(inputs)
    axes = {"features": {0: "batch"}}
    shapes = tuple(axes.get(name, {0: "batch", 1: "tokens"}) for name in names)
    try:
        with _quiet():
            program: Any = torch.onnx.export(
                _Logits(model, names).eval(),
                tuple(inputs.values()),
                input_names=names,
                output_names=["logits"],
                dynamic_shapes=(shapes,),
                dynamo=True,
                verbose=False,
            )
            _strip(program.model)
            size = sum(tensor.nbytes for tensor in model.state_dict().values())
            program.save(str(path), external_data=size > MAX_INLINE_BYTES)
    except Exception as error:  # the exporter's, and those of the model's own code
        raise ModelError(
            f"a {model.config.model_type} model cannot be exported to ONNX ({brief(error)}): use "
            "--format hf"
        ) from None


def _strip(model: Any) -> None:
    """Without the exporter's stack traces, which name this machine's paths."""
    graphs = [model.graph, *model.functions.values()]
    for graph in graphs:
        graph.metadata_props.clear()
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()


def _quantise(source: Path, path: Path) -> None:
    from onnxruntime.quantization import (  # type: ignore[import-not-found]  (optional)
        QuantType,
        quantize_dynamic,
    )

    with _quiet():
        quantize_dynamic(
            str(source),
            str(path),
            weight_type=QuantType.QInt8,
            use_external_data_format=source.with_name(f"{source.name}.data").exists(),
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings of torch and onnxruntime that state nothing about this model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        disabled = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)


def session_of(path: str | Path, num_threads: int = 1) -> Forward:
    """The file as a function of the inputs to its logits, on the CPU."""
    import onnxruntime  # type: ignore[import-not-found]  (optional)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def forward(inputs: dict[str, torch.Tensor]) -> np.ndarray:
        given = {name: values.numpy() for name, values in inputs.items()}
        return np.asarray(session.run(None, given)[0])

    return forward


# ---- what they are like ----------------------------------------------------------------------


def _measured(
    student: Located,
    classifier: Classifier,
    rows: Any,
    labels_R: np.ndarray,
    folder: Path,
    progress: ExportProgress,
) -> Exported:
    one, sequence = _one(classifier, rows)
    weights = student.folder / "model.safetensors"
    forms: dict[str, tuple[Path, Forward]] = {weights.name: (weights, classifier.logits)}
    forms |= {
        name: (folder / name, session_of(folder / name))
        for name in (FLOAT, INT8)
        if (folder / name).exists()
    }
    found: list[Measured] = []
    own: np.ndarray | None = None
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        for name, (path, forward) in forms.items():

            def report(done: int, name: str = name) -> None:
                progress.update(f"testing {name}", done, len(rows))

            probs_RC = classifier.probs(rows, report=report, forward=forward)
            own = probs_RC if own is None else own
            if name == FLOAT:
                _check_equal(probs_RC, own)
            time_ms = latency_ms(lambda forward=forward: forward(one))
            found.append(
                Measured(
                    name,
                    _accuracy(probs_RC, labels_R),
                    float((probs_RC.argmax(1) == own.argmax(1)).mean()),
                    _size_mb(path),
                    time_ms,
                )
            )
    finally:
        torch.set_num_threads(threads)
    return Exported(folder, tuple(found), len(rows), sequence)


def _check_equal(probs_RC: np.ndarray, own_RC: np.ndarray) -> None:
    difference = float(np.abs(probs_RC - own_RC).max())
    if not difference <= TOLERANCE:
        raise ModelError(
            "the ONNX file and the model give different outputs: a probability differs by "
            f"{difference:.3g} ({TOLERANCE:g} at most is rounding): use --format hf"
        )


def _accuracy(probs_RC: np.ndarray, labels_R: np.ndarray) -> float | None:
    is_labelled_R = labels_R != UNLABELLED
    if not is_labelled_R.any():
        return None
    return float((probs_RC.argmax(1) == labels_R)[is_labelled_R].mean())


def _size_mb(path: Path) -> float:
    """With its external weights, where it has any."""
    files = [path, path.with_name(f"{path.name}.data")]
    return sum(file.stat().st_size for file in files if file.exists()) / 1e6


def _one(classifier: Classifier, rows: Any) -> tuple[dict[str, torch.Tensor], str]:
    """One row, of texts as long as the student reads."""
    first = classifier.inputs(rows, [0])
    if "features" in first:
        return first, "one row"
    # Any token but the padding, which RoBERTa gives no position.
    token = 1 if classifier.model.config.get_text_config().pad_token_id == 0 else 0
    length = classifier.max_length
    one = {name: torch.zeros(1, length, dtype=torch.int64) for name in first}
    one["input_ids"] += token
    one["attention_mask"] += 1
    return one, f"one row of {length} tokens"


# ---- what goes along -------------------------------------------------------------------------


def _accompany(
    student: Located, classifier: Classifier, names: list[str], exported: Exported, folder: Path
) -> None:
    """config.json with the label names, the tokenizer, README.md and export.json."""
    for file in student.folder.iterdir():
        is_weights = file.suffix in (".safetensors", ".bin") or file.name.endswith(".index.json")
        if file.is_file() and not is_weights and file.name != "README.md":
            shutil.copyfile(file, folder / file.name)
    content = {
        "format": "onnx",
        "student": str(student.folder),
        "inputs": names,
        "test_rows": exported.num_rows,
        "latency": f"median of {exported.sequence} on one CPU thread",
        "models": [asdict(row) for row in exported.rows],
        "distill_version": __version__,
    }
    (folder / "export.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    file = INT8 if (folder / INT8).exists() else FLOAT
    (folder / "README.md").write_text(_readme(classifier, file, exported), encoding="utf-8")


def _readme(classifier: Classifier, file: str, exported: Exported) -> str:
    from distill.wording import MISSING, percent, three_digits

    lines = [
        f"| {row.file} | {percent(row.accuracy)} | {percent(row.agreement)} | "
        f"{three_digits(row.size_mb)} | {three_digits(row.latency_ms)} |"
        for row in exported.rows
    ]
    table = "\n".join(lines).replace(MISSING, "")
    config: Any = classifier.model.config
    labels = ", ".join(str(config.id2label[i]) for i in range(len(config.id2label)))
    reading = reading_of(config, exported.folder)
    reads = "" if reading is None else f"\nReads {reading}.\n"
    return f"""\
# {config.family if isinstance(classifier.model, FeatureClassifier) else config.model_type} \
classifier as ONNX

Labels: {labels}
{reads}
| model | accuracy | agreement | MB | CPU ms |
|---|---:|---:|---:|---:|
{table}

On {exported.num_rows:,} test rows. Agreement: with the float model's labels. CPU ms: median of \
{exported.sequence} on one CPU thread.

```python
{_use(classifier, file)}```
"""


def _use(classifier: Classifier, file: str) -> str:
    if isinstance(classifier.model, FeatureClassifier):
        columns = ", ".join(map(str, classifier.model.config.columns))
        return f"""\
import json

import numpy as np
import onnxruntime

folder = "path/to/this/folder"
session = onnxruntime.InferenceSession(f"{{folder}}/{file}")
labels = json.load(open(f"{{folder}}/config.json"))["id2label"]
rows = [[0.0] * {classifier.model.config.num_features}]  # {columns}: raw, as in the data
(logits,) = session.run(None, {{"features": np.array(rows, np.float32)}})
print([labels[str(index)] for index in logits.argmax(-1)])
"""
    given = '["some text"], ["its pair"]' if classifier.is_pair else '["some text"]'
    pads = 'padding=True, padding_side="right", ' if classifier.can_pad else ""
    return f"""\
import onnxruntime
from transformers import AutoConfig, AutoTokenizer

folder = "path/to/this/folder"
session = onnxruntime.InferenceSession(f"{{folder}}/{file}")
tokenizer = AutoTokenizer.from_pretrained(folder)
labels = AutoConfig.from_pretrained(folder).id2label
inputs = tokenizer(
    {given}, truncation=True, max_length={classifier.max_length}, {pads}return_tensors="np"
)
(logits,) = session.run(None, {{one.name: inputs[one.name] for one in session.get_inputs()}})
print([labels[index] for index in logits.argmax(-1)])
"""
