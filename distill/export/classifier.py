"""A classifier as a student: labels and probabilities of rows.

Shape suffixes: B rows of a batch, R all rows, C classes, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from distill.config import Columns, Cut, Device
from distill.data.columns import texts_in
from distill.data.encode import encode, padded
from distill.data.file_format import Kept
from distill.data.numbers import features_in
from distill.data.source import File
from distill.errors import ConfigError, DataError
from distill.export.locate import Located
from distill.export.request import (
    Answered,
    ColumnOptions,
    ExportProgress,
    PredictionRequest,
    PredictionSource,
    batches,
    check_new_columns,
    check_options,
    device_of,
    some,
    usual_column,
)
from distill.models.features import FeatureClassifier
from distill.models.load import load_classifier, load_tokenizer, read_config, usable_positions
from distill.models.reading import reading_of
from distill.models.tokenizer import pad_id

LABEL = "prediction"
PROBABILITY = "probability"
LONGEST = 512
"""Tokens that a classifier reads where nothing states otherwise."""
BATCH = 64
"""Rows of a classifier in one forward."""
USUAL_TEXTS = ("text", "code")


class ClassifierStudent:
    """Predicts labels of texts, pairs or features."""

    task: ClassVar[str] = "classification"
    text_column: ClassVar[str] = "text"

    def columns(self, student: Located, named: ColumnOptions, file: File) -> Columns:
        chats = {"--messages-column": named.messages, "--tools-column": named.tools}
        options = {"--prompt-column": named.prompt, **chats}
        check_options(options, student.folder, "text or features")
        config = read_config(student.folder)
        if config.model_type != "distill_features":
            return _text_columns(config, student, named, file)
        texts = {"--text-column": named.text, "--pair-column": named.pair}
        check_options(texts, student.folder, "features")
        names: Sequence[str] = getattr(config, "columns", ())
        return Columns.model_validate({"features": names[0] if len(names) == 1 else tuple(names)})

    def predict(
        self,
        student: Located,
        source: PredictionSource,
        request: PredictionRequest,
        progress: ExportProgress,
    ) -> Answered:
        model: Any = load_classifier(student.folder)
        labels = [str(model.config.id2label[i]) for i in range(len(model.config.id2label))]
        columns_added = [LABEL, PROBABILITY, *(f"{PROBABILITY}.{label}" for label in labels)]
        check_new_columns(columns_added, source.content, request.data)
        classifier = Classifier(model, str(student.folder), request.max_length, request.device)
        if isinstance(model, FeatureClassifier):
            rows: Any = _features(source.files, source.columns, model)
        else:
            rows = _texts(source.files, source.columns)

        def report(done: int) -> None:
            progress.update("predicting", done, len(rows))

        probs_RC = classifier.probs(rows, request.batch_size or BATCH, report)
        best_R = probs_RC.argmax(1)
        added: dict[str, list[Any]] = {
            LABEL: [labels[index] for index in best_R],
            PROBABILITY: probs_RC.max(1).tolist(),
        }
        added |= {f"{PROBABILITY}.{name}": probs_RC[:, c].tolist() for c, name in enumerate(labels)}
        notes = ()
        if classifier.num_truncated:
            notes = (
                f"{classifier.num_truncated:,} of {len(rows):,} rows are truncated to "
                f"{classifier.max_length} tokens ({classifier.cut})",
            )
        return Answered(added, notes)

    def check_onnx(self, student: Located) -> None:
        """Every classifier may be exported; torch may still refuse one."""


def _text_columns(config: Any, student: Located, named: ColumnOptions, file: File) -> Columns:
    """Of one text, or of a pair where the student was trained on pairs."""
    experiment = student.experiment
    own = None if experiment is None else experiment.data.columns
    text = named.text or (None if own is None else own.text) or usual_column(USUAL_TEXTS, file)
    pair = named.pair or (None if own is None else own.text_pair)
    reading = reading_of(config, student.folder)
    if reading is not None and reading.is_pair != (pair is not None):
        if reading.is_pair:
            raise ConfigError(
                f"{student.folder} was trained on pairs of texts: give the column of the second "
                "text with --pair-column"
            )
        raise ConfigError(
            f"--pair-column {pair}: {student.folder} was trained on single texts: remove it"
        )
    return Columns(text=text, text_pair=pair)


def _texts(files: Sequence[File], columns: Columns) -> list[tuple[str, str | None]]:
    assert columns.text is not None
    names = (columns.text,) if columns.text_pair is None else (columns.text, columns.text_pair)
    rows: list[tuple[str, str | None]] = []
    for batch, file, first_row in batches(files, names):
        texts = texts_in(batch, columns.text, "data.columns.text", file, first_row)
        pairs: list[Any] = [None] * len(texts)
        if columns.text_pair is not None:
            pairs = texts_in(batch, columns.text_pair, "data.columns.text_pair", file, first_row)
        rows += zip(texts, pairs, strict=True)
    return some(rows, files)


def _features(files: Sequence[File], columns: Columns, model: FeatureClassifier) -> np.ndarray:
    names = columns.features
    assert names is not None
    listed = (names,) if isinstance(names, str) else names
    num: int | None = model.config.num_features if len(listed) == 1 else None
    blocks = [
        features_in(batch, listed, file, first_row, num)
        for batch, file, first_row in batches(files, (), Kept(numbers=listed))
    ]
    return np.concatenate(some(blocks, files))


class Classifier:
    """A loaded classifier of texts, pairs or features, on its device.

    Texts are truncated as in training, where the export states it. ``num_truncated`` counts them.
    """

    def __init__(
        self,
        model: Any,
        folder: str,
        max_length: int | None = None,
        device: Device = "auto",
    ) -> None:
        self.model = model.to(device_of(device)).eval()
        self.num_truncated = 0
        self._tokenizer = None
        if isinstance(model, FeatureClassifier):
            return
        self._tokenizer = load_tokenizer(folder)
        reading = reading_of(model.config, folder)
        positions = usable_positions(model.config.get_text_config())
        trained = reading.max_length if reading else min(positions, LONGEST)
        self.max_length = max_length or trained
        self.cut: Cut = reading.cut if reading else "head"
        self.is_pair = reading is not None and reading.is_pair
        self.can_pad = self._tokenizer.pad_token_id is not None
        if self.max_length > positions:
            raise ConfigError(
                f"--max-length {self.max_length} is longer than the {positions} positions of "
                f"{folder}: lower it"
            )

    def probs(
        self,
        rows: Any,
        batch_size: int = BATCH,
        report: Callable[[int], None] = lambda done: None,
        forward: Callable[[dict[str, torch.Tensor]], np.ndarray] | None = None,
    ) -> np.ndarray:
        """float64 [R, C] of texts (text, pair or None), or of features float32 [R, D].

        ``forward``: logits [B, C] of what :meth:`inputs` gives, of the same model in another form;
        None: the model itself.
        """
        order = np.arange(len(rows))
        if self._tokenizer is not None:  # rows of like length share a batch: less padding
            sizes = [len(text) + len(pair or "") for text, pair in rows]
            order = np.argsort(sizes, kind="stable")
        found = np.empty((len(rows), len(self.model.config.id2label)), np.float64)
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            logits_BC = (forward or self.logits)(self.inputs(rows, places))
            found[places] = softmax(logits_BC.astype(np.float64))
            report(start + len(places))
        return found

    def inputs(self, rows: Any, places: Sequence[int] | np.ndarray) -> dict[str, torch.Tensor]:
        """What the model takes of some rows, on the CPU."""
        if self._tokenizer is None:
            return {"features": torch.from_numpy(np.ascontiguousarray(rows[places]))}
        texts = [rows[place] for place in places]
        ids, types, num_truncated = encode(self._tokenizer, texts, self.max_length, self.cut)
        self.num_truncated += num_truncated
        for place, own in zip(places, ids, strict=True):
            if not own:
                raise DataError(
                    f"row {int(place) + 1} has no token (the text is empty): remove the row, or "
                    "give it a text"
                )
        tokens = padded(ids, types, pad_id(self._tokenizer))
        inputs = {"input_ids": tokens.input_ids_BT, "attention_mask": tokens.attention_mask_BT}
        if tokens.token_type_ids_BT is not None:
            inputs["token_type_ids"] = tokens.token_type_ids_BT
        return {name: torch.from_numpy(values) for name, values in inputs.items()}

    @torch.inference_mode()
    def logits(self, inputs: dict[str, torch.Tensor]) -> np.ndarray:
        """float32 [B, C]."""
        on_device = {name: values.to(self.model.device) for name, values in inputs.items()}
        return self.model(**on_device).logits.float().cpu().numpy()


def softmax(logits_BC: np.ndarray) -> np.ndarray:
    odds_BC = np.exp(logits_BC - logits_BC.max(1, keepdims=True))
    return odds_BC / odds_BC.sum(1, keepdims=True)
