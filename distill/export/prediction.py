"""A student's answers for every row of a file: what ``distill predict`` does, without Ray.

Of a classifier the label and the probabilities, of a language model generated text. The rows keep
their order and their columns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from distill.config import Columns, Cut, Device
from distill.data.chat_template import ChatTemplate
from distill.data.chat_tokens import ChatTokens
from distill.data.chats import chats_in, tools_in
from distill.data.columns import texts_in, values_in
from distill.data.encode import encode, padded
from distill.data.formats import Kept
from distill.data.numbers import features_in
from distill.data.sequences import prefix_of
from distill.data.source import File, column_names, find_files, listed, read_batches
from distill.data.tables import (
    Content,
    check_ending,
    joined,
    names_in,
    read_content,
    with_columns,
    write_content,
)
from distill.data.turns import ANSWER
from distill.errors import ConfigError, DataError, InputError, RunFolderError
from distill.evaluation.generation import write_answers
from distill.export.locate import Located, locate
from distill.models.features import FeatureClassifier
from distill.models.language import load_language_model
from distill.models.load import load_classifier, load_tokenizer, read_config, usable_positions
from distill.models.reading import reading_of
from distill.models.tokenizer import pad_id

LABEL = "prediction"
PROBABILITY = "probability"
GENERATED = "generated"
LONGEST = 512
"""Tokens that a classifier reads where nothing states otherwise."""
BATCH = 64
"""Rows of a classifier in one forward."""
PROMPTS = 8
"""Prompts that are continued together."""
USUAL_TEXTS = ("text", "code")
USUAL_PROMPTS = ("prompt", "text")
OPTIONS = {
    "data.columns.text_pair": "--pair-column",
    "data.columns.text": "--text-column",
    "data.columns.prompt": "--prompt-column",
    "data.columns.messages": "--messages-column",
    "data.columns.tools": "--tools-column",
    "data.path": "--data",
}
"""Keys of a configuration, and the options of this command that replace them."""


class Listener(Protocol):
    def say(self, message: str) -> None: ...
    def update(self, label: str, done: float | None = None, total: float | None = None) -> None: ...


@dataclass(frozen=True)
class ColumnOptions:
    """Columns that replace those of the run's configuration; None: as there."""

    text: str | None = None
    pair: str | None = None
    prompt: str | None = None
    messages: str | None = None
    tools: str | None = None


@dataclass(frozen=True)
class Request:
    """What ``distill predict`` is given."""

    student: Path
    """A run, a sweep's trial, or an exported folder."""
    data: str
    """A file, folder, glob or URI of Parquet, Arrow, JSON lines or CSV."""
    columns: ColumnOptions = ColumnOptions()
    max_length: int | None = None
    """Classifiers: tokens kept of a row; None: as in training."""
    max_new_tokens: int = 64
    """Language models: tokens generated for a row at most."""
    batch_size: int | None = None
    """Rows at once; None: 64, of language models 8."""
    device: Device = "auto"
    """auto: the GPU where there is one."""


@dataclass(frozen=True, eq=False)
class Predicted:
    """The rows of the file, and what the student answers."""

    student: Path
    content: Content
    added: dict[str, list[Any]]
    """New columns by name, a value for each row."""
    notes: tuple[str, ...] = ()
    """Counted decisions, such as truncated rows."""

    @property
    def num_rows(self) -> int:
        return len(next(iter(self.added.values())))

    @cached_property
    def table(self) -> Any:
        """A pyarrow table: the file's columns and, behind them, the new ones."""
        return with_columns(self.content, self.added)

    def write(self, out: str | Path) -> Path:
        """By the ending of ``out``: .parquet, .arrow, .jsonl or .csv; atomically."""
        return write_content(self.content, self.added, out)


class Answered(NamedTuple):
    added: dict[str, list[Any]]
    notes: tuple[str, ...] = ()


def check_out(out: str | Path, overwrite: bool) -> None:
    """Before anything is computed. Raises RunFolderError for a file that exists already."""
    check_ending(out)
    if Path(out).is_dir():
        raise RunFolderError(f"--out {out} is a folder: give a file")
    if Path(out).exists() and not overwrite:
        raise RunFolderError(f"--out {out} already exists: give another file, or add --overwrite")


def predict(request: Request, listener: Listener) -> Predicted:
    """Every row's prediction. Columns are the run's, as far as ``request.columns`` names no others;
    a label is not needed.

    Raises InputError for a student, file or column that cannot be used, and for a column that is
    called like one of the new ones.
    """
    student = locate(request.student)
    try:
        return _predict(student, request, listener)
    except InputError as error:
        raise type(error)(_as_options(str(error))) from None


def _predict(student: Located, request: Request, listener: Listener) -> Predicted:
    files = find_files(request.data)
    columns = _columns(student, request.columns, files[0])
    listener.say("reading the data")
    content = joined([read_content(file) for file in files])
    if student.is_language_model:
        _refuse_clashes([GENERATED], content, request.data)
        answered = _generated(student, columns, files, request, listener)
    else:
        answered = _classified(student, columns, files, request, content, listener)
    for note in answered.notes:
        listener.say(note)
    return Predicted(student.folder, content, *answered)


def _as_options(message: str) -> str:
    for key, option in OPTIONS.items():
        message = message.replace(key, option)
    return message


def device_of(device: Device) -> torch.device:
    """Raises ConfigError for a GPU that is not there."""
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise ConfigError("--device cuda: there is no GPU that torch can use: set --device cpu")
    return torch.device("cuda" if has_gpu and device != "cpu" else "cpu")


def _refuse_clashes(new: Sequence[str], content: Content, data: str) -> None:
    taken = [name for name in new if name in names_in(content)]
    if taken:
        raise DataError(
            f"{data} has a column {taken[0]!r} already, which is the name of a new column: rename "
            "it, or remove it"
        )


# ---- which columns -----------------------------------------------------------------------------


def _columns(student: Located, named: ColumnOptions, file: File) -> Columns:
    """Those that ``named`` gives, else the run's, else the usual names."""
    experiment = student.experiment
    own = None if experiment is None else experiment.data.columns
    if student.is_language_model:
        _refuse({"--text-column": named.text, "--pair-column": named.pair}, student, "a prompt")
        return _language_columns(
            named, None if experiment is None else experiment.data.columns, file
        )
    chats = {"--messages-column": named.messages, "--tools-column": named.tools}
    _refuse({"--prompt-column": named.prompt, **chats}, student, "text or features")
    config = read_config(student.folder)
    if config.model_type == "distill_features":
        _refuse({"--text-column": named.text, "--pair-column": named.pair}, student, "features")
        columns: Sequence[str] = getattr(config, "columns", ())
        return Columns.model_validate(
            {"features": columns[0] if len(columns) == 1 else tuple(columns)}
        )
    text = named.text or (own.text if own is not None else None) or _usual(USUAL_TEXTS, file)
    pair = named.pair or (own.text_pair if own is not None else None)
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


def _refuse(given: dict[str, str | None], student: Located, what: str) -> None:
    for option, value in given.items():
        if value is not None:
            raise ConfigError(f"{option} {value}: {student.folder} reads {what}: remove it")


def _language_columns(named: ColumnOptions, own: Columns | None, file: File) -> Columns:
    """``prompt`` or ``messages``; the text column of a model of plain text is its prompt."""
    if named.prompt is not None and named.messages is not None:
        raise ConfigError("give --prompt-column or --messages-column, not both")
    messages, prompt, tools = named.messages, named.prompt, named.tools
    if messages is None and prompt is None:
        if own is not None:
            messages, prompt = own.messages, own.prompt or own.text
            tools = tools or own.tools
            there = column_names(file)
            if (read := messages or prompt) is not None and read not in there:
                raise DataError(
                    f"{file.uri} has no column {read}, which the run read, it has "
                    f"{listed(there)}: name chats by --messages-column, or prompts by "
                    "--prompt-column"
                )
        elif "messages" in column_names(file):
            messages = "messages"
        else:
            prompt = _usual(USUAL_PROMPTS, file, "--prompt-column or --messages-column")
    if messages is not None:
        return Columns.model_validate({"messages": messages, "tools": tools})
    if named.tools is not None:
        raise ConfigError("--tools-column goes with --messages-column: remove it")
    return Columns.model_validate({"prompt": prompt, "completion": prompt})


def _usual(names: Sequence[str], file: File, option: str = "--text-column") -> str:
    there = column_names(file)
    found = next((name for name in names if name in there), None)
    if found is None:
        raise DataError(
            f"{file.uri} has no column {' or '.join(names)}, it has {listed(there)}: give the text "
            f"column with {option}"
        )
    return found


def _batches(
    files: Sequence[File],
    names: tuple[str, ...],
    kept: Kept = Kept(),  # noqa: B008 (immutable)
) -> Iterator[tuple[Any, File, int]]:
    """Record batches of strings, each with its file and the number of its first row there."""
    for file in files:
        first_row = 1
        for batch in read_batches(file, names, kept):
            if batch.num_rows:
                yield batch, file, first_row
            first_row += batch.num_rows


# ---- classifiers -------------------------------------------------------------------------------


def _classified(
    student: Located,
    columns: Columns,
    files: Sequence[File],
    request: Request,
    content: Content,
    listener: Listener,
) -> Answered:
    model: Any = load_classifier(student.folder)
    labels = [str(model.config.id2label[i]) for i in range(len(model.config.id2label))]
    columns_added = [LABEL, PROBABILITY, *(f"{PROBABILITY}.{label}" for label in labels)]
    _refuse_clashes(columns_added, content, request.data)
    classifier = Classifier(model, str(student.folder), request.max_length, request.device)
    if isinstance(model, FeatureClassifier):
        rows: Any = _features(files, columns, model)
    else:
        rows = _texts(files, columns)

    def report(done: int) -> None:
        listener.update("predicting", done, len(rows))

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


def _texts(files: Sequence[File], columns: Columns) -> list[tuple[str, str | None]]:
    assert columns.text is not None
    names = (columns.text,) if columns.text_pair is None else (columns.text, columns.text_pair)
    rows: list[tuple[str, str | None]] = []
    for batch, file, first_row in _batches(files, names):
        texts = texts_in(batch, columns.text, "data.columns.text", file, first_row)
        pairs: list[Any] = [None] * len(texts)
        if columns.text_pair is not None:
            pairs = texts_in(batch, columns.text_pair, "data.columns.text_pair", file, first_row)
        rows += zip(texts, pairs, strict=True)
    return _some(rows, files)


def _features(files: Sequence[File], columns: Columns, model: FeatureClassifier) -> np.ndarray:
    names = columns.features
    assert names is not None
    wanted = (names,) if isinstance(names, str) else names
    num: int | None = model.config.num_features if len(wanted) == 1 else None
    blocks = [
        features_in(batch, wanted, file, first_row, num)
        for batch, file, first_row in _batches(files, (), Kept(numbers=wanted))
    ]
    return np.concatenate(_some(blocks, files))


def _some(rows: list[Any], files: Sequence[File]) -> list[Any]:
    if not rows:
        raise DataError(f"data.path: {files[0].uri} has no rows: give a file with rows")
    return rows


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


# ---- language models -----------------------------------------------------------------------------


def _generated(
    student: Located,
    columns: Columns,
    files: Sequence[File],
    request: Request,
    listener: Listener,
) -> Answered:
    model: Any = load_language_model(student.folder)
    model.to(device_of(request.device))
    tokenizer: Any = load_tokenizer(student.folder)
    experiment = student.experiment
    template = ChatTemplate()
    as_chat = False
    notes: tuple[str, ...] = ()
    if experiment is not None:
        arguments = json.dumps(experiment.data.template_arguments, sort_keys=True)
        template = ChatTemplate(arguments=arguments)
        as_chat = experiment.data.prompt_as_chat or experiment.data.columns.messages is not None
    elif columns.messages is None and tokenizer.chat_template:
        notes = (
            "prompts are continued as plain text, without the tokenizer's chat template: give "
            "chats by --messages-column to use it",
        )
    ends: tuple[int, ...] = ()
    if columns.messages is not None or as_chat:
        chat_tokens = ChatTokens(tokenizer, template)
        ends = chat_tokens.ends
        prompts, num_answered = _chat_prompts(files, columns, chat_tokens)
        if num_answered:
            notes = (
                f"{num_answered:,} of {len(prompts):,} chats end with an answer, which is ignored "
                "and generated again",
            )
    else:
        prompts = _text_prompts(files, columns, tokenizer)
    _check_room(prompts, model, request)
    texts: list[str] = [""] * len(prompts)
    size = request.batch_size or PROMPTS
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        answers = write_answers(
            model,
            tokenizer,
            [prompts[row] for row in rows],
            request.max_new_tokens,
            size,
            turn_ends=ends,
        )
        for row, text in zip(rows, answers, strict=True):
            texts[row] = text
        listener.update("generating", start + len(rows), len(prompts))
    return Answered({GENERATED: texts}, notes)


def _text_prompts(files: Sequence[File], columns: Columns, tokenizer: Any) -> list[list[int]]:
    """In the model's tokens, as in training: behind what the tokenizer puts in front."""
    assert columns.prompt is not None
    prefix = prefix_of(tokenizer)
    prompts: list[list[int]] = []
    for batch, file, _ in _batches(files, (columns.prompt,)):
        texts = values_in(batch, columns.prompt, "data.columns.prompt", file)
        found = tokenizer([text or "" for text in texts], add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        prompts += [[*prefix, *ids] for ids in found]
    return _some(prompts, files)


def _chat_prompts(
    files: Sequence[File], columns: Columns, chat_tokens: ChatTokens
) -> tuple[list[list[int]], int]:
    """The tokens before an answer, as in training; and how many chats had one already."""
    prompts: list[list[int]] = []
    num_answered = 0
    for chat, tools in _chats(files, columns):
        if chat[-1]["role"] == "assistant" and len(chat) > 1:
            chat = chat[:-1]
            num_answered += 1
        schemas = None if tools is None else json.loads(tools)
        found = chat_tokens.prompt([*chat, ANSWER], len(prompts) + 1, schemas)
        assert found is not None
        prompts.append(found[0])
    return _some(prompts, files), num_answered


def _chats(files: Sequence[File], columns: Columns) -> Iterator[tuple[list[Any], str | None]]:
    if columns.messages is None:
        assert columns.prompt is not None
        for batch, file, first_row in _batches(files, (columns.prompt,)):
            for text in texts_in(batch, columns.prompt, "data.columns.prompt", file, first_row):
                yield [{"role": "user", "content": text}], None
        return
    wanted = [columns.messages] + ([columns.tools] if columns.tools else [])
    for batch, file, first_row in _batches(files, (), Kept(chats=tuple(wanted))):
        chats = chats_in(batch, columns.messages, file, first_row)
        tools: list[str | None] = [None] * len(chats)
        if columns.tools is not None and columns.tools in batch.schema.names:
            tools = tools_in(batch, columns.tools, file, first_row)
        for chat, schemas in zip(chats, tools, strict=True):
            yield json.loads(chat), schemas


def _check_room(prompts: Sequence[Sequence[int]], model: Any, request: Request) -> None:
    positions = usable_positions(model.config)
    for row, prompt in enumerate(prompts, 1):
        if not prompt:
            raise DataError(f"row {row} has an empty prompt: give it a text, or remove the row")
        if len(prompt) >= positions:
            raise DataError(
                f"the prompt of row {row} has {len(prompt)} tokens, which leaves none of the "
                f"model's {positions} positions for an answer: shorten it"
            )
