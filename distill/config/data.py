"""The section ``data``: where the rows are, their columns, splits and limits."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from distill.config.labels import Label
from distill.variant import Only, Section

Cut = Literal["head", "tail", "middle"]
SPLITS = ("train", "transfer", "validation", "test")
RENDERING = frozenset(
    (
        "messages",
        "conversation",
        "tools",
        "documents",
        "chat_template",
        "add_generation_prompt",
        "continue_final_message",
        "sanitize_control_tokens",
        "tokenize",
        "tokenizer_kwargs",
        "padding",
        "truncation",
        "max_length",
        "return_tensors",
        "return_dict",
        "return_assistant_tokens_mask",
    )
)
"""Arguments of transformers' apply_chat_template that are not variables of a template."""


OF_TEXT = Only("language_model", way_out="set task to language_model, or set data.columns.text")


class Columns(Section):
    """Names of the columns. A row is a text, a pair of texts, numbers, a prompt with its
    completion, or a chat."""

    text: str | None = "text"
    """Column with the text or source code. null (the default) if ``features``, ``prompt`` or
    ``messages`` is given."""
    prompt: Annotated[str | None, OF_TEXT] = None
    """Language models: column with the prompt; needs ``completion``. The student is trained only on
    the tokens of the completion."""
    completion: str | None = None
    """Language models: column with the text that follows the prompt."""
    messages: Annotated[str | None, OF_TEXT] = None
    """Language models: column with chats, lists of {role, content}; the student is trained only on
    the assistant's tokens. Needs a chat template: ``data.chat_template``, or that of the student's
    tokenizer. A message of the assistant may have ``tool_calls`` and no content; a message with
    ``weight`` 0 is context only. ShareGPT's {from, value} is accepted too, and so is content as a
    list of text parts."""
    tools: str | None = None
    """Language models: column with the tool schemas of a chat, for the template: lists of objects
    or of JSON strings, or such a list as a string; null or empty: none."""
    text_pair: Annotated[str | None, Only("classification")] = None
    """Column with the second text of a pair task (clone detection, entailment); null for single
    texts. Transformer models read the pair as joined by their tokenizer, objects with
    ``predict_proba`` as one string with a newline between the two."""
    label: str = "label"
    """Column with the label: a string, an integer or a boolean. Language models have none."""
    domain: str | None = None
    """Column with the domain of a row (a product category, a programming language); null: no
    domains. Experts can be trained for each value, and results are reported for each value."""
    split: str | None = None
    """Column with the name of the split that a row belongs to; null: from the names of files and
    folders, else from a hash (``data.holdout``)."""
    features: Annotated[str | tuple[str, ...] | None, Only("classification")] = None
    """Numbers instead of text: one column of lists of equal length, or a list of several columns of
    numbers."""

    @model_validator(mode="before")
    @classmethod
    def _one_content(cls, raw: Any) -> Any:
        """The default text column is dropped where another content is named."""
        if not isinstance(raw, dict):
            return raw
        named = [k for k in ("features", "prompt", "messages") if raw.get(k) is not None]
        if not named:
            return raw
        for key in ("text", "text_pair", *named[1:]):
            if raw.get(key) is not None:
                raise ValueError(
                    f"give data.columns.{key} ({raw[key]!r}) or data.columns.{named[0]} "
                    f"({raw[named[0]]!r}), not both: a row has one content"
                )
        return raw | {"text": None}

    @model_validator(mode="after")
    def _some_input(self) -> Columns:
        if (self.prompt is None) != (self.completion is None):
            raise ValueError(
                "data.columns.prompt and data.columns.completion must be given together"
            )
        if {self.text, self.features, self.prompt, self.messages} == {None}:
            raise ValueError("data.columns.text is null: name a column, or data.columns.features")
        if self.tools is not None:
            self._check_tools(self.tools)
        names = (self.features,) if isinstance(self.features, str) else self.features
        if names is not None and (not names or len(set(names)) < len(names)):
            raise ValueError(f"data.columns.features names no column, or one twice: {names}")
        return self

    def _check_tools(self, tools: str) -> None:
        if self.messages is None:
            raise ValueError(
                f"data.columns.tools ({tools!r}) applies only to chats: give "
                "data.columns.messages, or remove it"
            )
        for key in ("messages", "domain", "split"):
            if getattr(self, key) == tools:
                raise ValueError(
                    f"data.columns.tools and data.columns.{key} both name {tools!r}: name two "
                    "columns"
                )


class SplitNames(Section):
    """Names of the splits in ``data.columns.split``, or in the names of files and folders. In file
    names, these words are searched first, then the keywords of Hugging Face ``datasets``: see
    data/split_names.py."""

    train: str = "train"
    """Name of the split that students and experts are trained on."""
    transfer: str = "transfer"
    """Name of the split on which only the student is trained, from the teachers' outputs; its
    labels are not read."""
    validation: str = "validation"
    """Name of the split that is used to select the exported weights, and by sweeps."""
    test: str = "test"
    """Name of the split for the final comparison; nothing is selected with it."""


class Holdout(Section):
    """Shares of the rows (or of the rows of the train files) for splits that are given neither by a
    column nor by file names. A hash of ``group`` or of the text selects the rows, so that rows that
    are added later do not change the split of the others."""

    transfer: float = Field(default=0.0, ge=0, lt=1)
    """Share of the rows for the transfer split, whose labels are not used: the student is trained
    on them, experts are not. Raise it (0.3) if ``experts`` are trained: on their own training rows
    they are almost certain, so their outputs add little to the labels."""
    validation: float = Field(default=0.1, gt=0, lt=1)
    """Share of the rows for the validation split."""
    test: float = Field(default=0.1, gt=0, lt=1)
    """Share of the rows for the test split."""
    group: str | None = None
    """Column that is hashed, so that all rows with the same value are in the same split (a
    document, an author, a template); null: the text is hashed, so that equal texts are in the same
    split."""


class Limit(Section):
    """Maximum rows for each domain and split; a seeded sample is kept."""

    train: int | None = Field(default=None, gt=0)
    """Rows of each domain; null: all."""
    transfer: int | None = Field(default=None, gt=0)
    """Rows of each domain; null: all."""
    validation: int | None = Field(default=None, gt=0)
    """Rows of each domain; null: all."""
    test: int | None = Field(default=None, gt=0)
    """Rows of each domain; null: all."""


class ImageShape(Section):
    """Shape of the image that the numbers of a row are, in the order height, width, channels."""

    height: int = Field(ge=1)
    """Pixels."""
    width: int = Field(ge=1)
    """Pixels."""
    channels: int = Field(default=1, ge=1)
    """Numbers per pixel: 1 for grey, 3 for RGB."""


class Data(Section):
    path: str | tuple[str, ...]
    """Parquet, Arrow, JSONL or CSV: a file, folder, glob or URI (file, s3, gs, any fsspec), a list
    of them, or a folder written by Hugging Face ``datasets``. If the name of any file in a folder,
    glob or list contains the word train, all file names must contain their split (see
    ``splits``)."""
    columns: Columns = Columns()
    """Names of the columns."""
    labels: Annotated[tuple[Label, ...] | None, Only("classification")] = None
    """Label names in class order; null: those of the first teacher, else the sorted values of the
    train split. Integers need no quotes."""
    splits: SplitNames = SplitNames()
    """Names of the splits."""
    holdout: Holdout = Holdout()
    """Shares of the rows for splits that the data does not define."""
    limit: Limit = Limit()
    """Use fewer rows, for a quick first run."""
    max_length: int = Field(default=128, ge=4)
    """Maximum number of tokens of a row, special tokens included; longer rows are truncated (see
    ``cut``), counted and reported. Language models: tokens of a block; a longer ``text`` is split
    into several blocks without loss, a longer prompt with its completion, or chat, is truncated.
    Time and memory grow with it: choose a length that covers most rows."""
    packing: bool = True
    """Language models: true packs sequences of one domain into blocks of ``max_length`` tokens,
    each with its own attention and positions. false: one sequence per block, which generated text
    needs (``sampling.type``)."""
    max_unlearnable: float = Field(default=0.01, ge=0, le=1)
    """Language models: maximum share of rows without target tokens (an empty completion, a chat
    without an answer, a prompt that fills ``max_length``). Such rows are dropped and counted; above
    this share the data is refused."""
    cut: Cut = "head"
    """Which tokens of a text longer than ``max_length`` are kept: ``head`` the first, ``tail`` the
    last, ``middle`` the first and the last, half each (an odd one at the front). Special tokens are
    always kept. In a pair, the longer text is truncated first, down to the length of the shorter
    one, then both equally (an odd token is kept in the longer), each by this rule. Use ``tail`` if
    the end of the text matters most."""
    on_empty_text: Literal["error", "drop"] = "error"
    """What to do with an empty text (0 characters): ``error`` refuses the data, ``drop`` drops and
    counts the row."""
    chat_template: str | None = None
    """Language models: file with the Jinja template that renders ``columns.messages``; it is
    exported with the student's tokenizer. null: the template of the tokenizer."""
    prompt_as_chat: bool = False
    """Language models: render ``columns.prompt`` and ``completion`` with the chat template, as a
    message of the user and one of the assistant, which is trained on. false: plain text, one after
    the other."""
    template_arguments: dict[str, Any] = {}
    """Language models: arguments for the chat template, e.g. {enable_thinking: false}."""
    unlabelled: Annotated[Literal["error", "transfer", "drop"], Only("classification")] = "error"
    """Classifiers: what to do with a row without a label outside the transfer split. ``error``:
    refuse the data. ``transfer``: move it to transfer if it is in train or its split is chosen by a
    hash; it is dropped if its text is also in validation or test, or if ``holdout.group`` puts it
    into one of these. ``drop``: drop it. Both count the rows, and then a validation or test file
    without any labels (or only with -1) counts as missing. Distillation helps most on unlabelled
    text: on rows that the teachers were trained on, their outputs add little to the labels."""
    image: Annotated[ImageShape | None, Only("classification")] = None
    """Shape of ``columns.features`` as an image; needed by ``student.family`` cnn. Pixels are
    standardised with one mean and standard deviation per channel. null: the numbers are not an
    image."""
    cache_dir: str | None = None
    """Folder of the tokenised data, shared by all runs; null: $DISTILL_CACHE or
    ~/.cache/distill."""

    @field_validator("labels")
    @classmethod
    def _two_labels(cls, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if labels is not None and (len(set(labels)) != len(labels) or len(labels) < 2):
            raise ValueError(f"data.labels needs at least two different labels, got {labels}")
        return labels

    @field_validator("template_arguments")
    @classmethod
    def _of_the_template(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(RENDERING & arguments.keys()):
            raise ValueError(
                f"data.template_arguments.{taken[0]} is set by distill itself: remove it"
            )
        try:
            json.dumps(arguments, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError(
                f"data.template_arguments {arguments} must be JSON values: put other values in "
                "quotes"
            ) from None
        return arguments

    @model_validator(mode="after")
    def _chats_for_the_template(self) -> Data:
        if self.prompt_as_chat and self.columns.prompt is None:
            raise ValueError(
                "data.prompt_as_chat renders prompts and completions as chats: give "
                "data.columns.prompt and completion, or remove it"
            )
        for key in ("chat_template", "template_arguments"):
            if getattr(self, key) and self.columns.messages is None and not self.prompt_as_chat:
                raise ValueError(
                    f"data.{key} applies only to chats: give data.columns.messages, or "
                    "data.prompt_as_chat: true with data.columns.prompt, or remove it"
                )
        return self
