"""What a corpus keeps of a row besides label and domain: its text, features, or document.

Shape suffixes: B rows, D features.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import pyarrow as pa

from distill.config import Data
from distill.data.chats import as_chat, chats_in, tools_in
from distill.data.columns import texts_in, values_in
from distill.data.formats import Kept
from distill.data.numbers import features_in
from distill.data.source import File
from distill.errors import DataError

Kind = Literal["text", "completion", "messages"]


class Content(Protocol):
    """What one kind of rows consists of, and how its columns are read.

    The caller of build_corpus chooses it: :func:`labelled_content` or :class:`DocumentContent`.
    """

    has_labels: ClassVar[bool]
    """Whether each row has a label, outside the transfer split."""
    settings: ClassVar[dict[str, str]]
    """What the key of a corpus has beyond the section ``data``."""
    kept: Kept
    """Columns that are not read as strings."""
    identity: list[Any]
    """What the fingerprint of a corpus begins with, after labels and domains."""

    @property
    def fields(self) -> tuple[tuple[str, pa.DataType], ...]:
        """Columns of the stored rows, without label and domain."""
        ...

    @property
    def strings(self) -> tuple[str | None, ...]:
        """Columns of the source that are read as strings."""
        ...

    def of(
        self, batch: pa.RecordBatch, file: File, first_row: int
    ) -> tuple[list[tuple], list[str]]:
        """Each row's values under ``fields``, and what its split is hashed from."""
        ...

    def empty(self, values: tuple) -> str | None:
        """The column of a row that has no content, or None."""
        ...

    def add(self, batch: pa.RecordBatch, split: str, content: hashlib._Hash) -> None:
        """Take the final rows of one batch into the fingerprint."""
        ...

    def manifest(self) -> dict[str, Any]:
        """What the manifest of a corpus says of the content."""
        ...


class TextContent:
    """The columns text and text_pair."""

    has_labels: ClassVar[bool] = True
    settings: ClassVar[dict[str, str]] = {}
    fields = (("text", pa.large_string()), ("text_pair", pa.large_string()))
    kept = Kept()

    def __init__(self, data: Data) -> None:
        self._names = data.columns
        self.strings = (data.columns.text, data.columns.text_pair)
        self.identity: list[Any] = []

    def of(
        self, batch: pa.RecordBatch, file: File, first_row: int
    ) -> tuple[list[tuple], list[str]]:
        names = self._names
        assert names.text is not None
        texts = texts_in(batch, names.text, "data.columns.text", file, first_row)
        if names.text_pair is None:
            return [(text, None) for text in texts], texts
        pairs = texts_in(batch, names.text_pair, "data.columns.text_pair", file, first_row)
        rows = list(zip(texts, pairs, strict=True))
        return rows, [f"{text}\0{pair}" for text, pair in rows]

    def empty(self, values: tuple) -> str | None:
        text, pair = values
        return "text" if not text else "text_pair" if pair == "" else None

    def add(self, batch: pa.RecordBatch, split: str, content: hashlib._Hash) -> None:
        for name, _ in self.fields:
            _add_texts(batch.column(name).to_pylist(), content)

    def manifest(self) -> dict[str, Any]:
        return {"is_pair": self._names.text_pair is not None}


class FeatureContent:
    """One list of float32 a row, and the moments of the train split."""

    has_labels: ClassVar[bool] = True
    settings: ClassVar[dict[str, str]] = {}
    fields = (("features", pa.list_(pa.float32())),)
    strings: tuple[str | None, ...] = ()

    def __init__(self, data: Data) -> None:
        columns = data.columns.features
        assert columns is not None
        self.kept = Kept(numbers=(columns,) if isinstance(columns, str) else columns)
        self._num: int | None = None
        self._moments: Moments | None = None
        self.identity: list[Any] = ["features"]

    def of(
        self, batch: pa.RecordBatch, file: File, first_row: int
    ) -> tuple[list[tuple], list[str]]:
        features_BD = features_in(batch, self.kept.numbers, file, first_row, self._num)
        self._num = features_BD.shape[1]
        return [(row_D,) for row_D in features_BD], [row_D.tobytes().hex() for row_D in features_BD]

    def empty(self, values: tuple) -> str | None:
        return None

    def add(self, batch: pa.RecordBatch, split: str, content: hashlib._Hash) -> None:
        features_BD = matrix(batch)
        content.update(features_BD.astype("<f4").tobytes())
        if split == "train" and len(features_BD):
            block = Moments.of(features_BD)
            self._moments = block if self._moments is None else self._moments.joined(block)

    def manifest(self) -> dict[str, Any]:
        assert self._num is not None
        moments = self._moments or Moments.of(np.zeros((1, self._num)))  # only: test rows alone
        features = {
            "columns": self.kept.numbers,
            "mean": moments.mean_D.tolist(),
            "sd": moments.sd_D.tolist(),
        }
        return {"is_pair": False, "features": features}


class DocumentContent:
    """What a language model is trained on: a text, a prompt with its completion, or a chat."""

    has_labels: ClassVar[bool] = False
    settings: ClassVar[dict[str, str]] = {"task": "language_model"}

    def __init__(self, data: Data) -> None:
        names = data.columns
        if names.features is not None or names.text_pair is not None:
            key = "features" if names.text_pair is None else "text_pair"
            raise DataError(
                f"data.columns.{key} is not used by task language_model: give data.columns.text, "
                "prompt with completion, or messages"
            )
        self._names = names
        chats = (names.messages, names.tools)
        self.kept = Kept(chats=tuple(name for name in chats if name is not None))
        self.kind: Kind = "text"
        columns: tuple[str, ...] = ("text",)
        self.strings = (names.text,)
        if names.messages is not None:
            self.kind, columns, self.strings = "messages", ("messages",), ()
            if names.tools is not None:
                columns += ("tools",)
        elif names.prompt is not None:
            self.kind, columns = "completion", ("prompt", "completion")
            self.strings = (names.prompt, names.completion)
            if data.prompt_as_chat:
                self.kind, columns = "messages", ("messages",)
        self.fields = tuple((name, pa.large_string()) for name in columns)
        self.identity: list[Any] = ["language_model", self.kind]
        if names.tools is not None:
            self.identity.append("tools")

    def of(
        self, batch: pa.RecordBatch, file: File, first_row: int
    ) -> tuple[list[tuple], list[str]]:
        names = self._names
        if names.messages is not None:
            chats = chats_in(batch, names.messages, file, first_row)
            if names.tools is None:
                return [(chat,) for chat in chats], chats
            tools = tools_in(batch, names.tools, file, first_row)
            return list(zip(chats, tools, strict=True)), chats
        if names.prompt is not None:
            prompts = values_in(batch, names.prompt, "data.columns.prompt", file)
            ends = values_in(batch, names.completion, "data.columns.completion", file)
            rows = [(p or "", end or "") for p, end in zip(prompts, ends, strict=True)]
            if self.kind == "messages":
                chats = [as_chat(prompt, end) for prompt, end in rows]
                return [(chat,) for chat in chats], chats
            return rows, [f"{prompt}\0{end}" for prompt, end in rows]
        assert names.text is not None
        texts = texts_in(batch, names.text, "data.columns.text", file, first_row)
        return [(text,) for text in texts], texts

    def empty(self, values: tuple) -> str | None:
        """An empty prompt is one, and a row without a completion is counted as unlearnable."""
        return "text" if self.kind == "text" and not values[0] else None

    def add(self, batch: pa.RecordBatch, split: str, content: hashlib._Hash) -> None:
        for name, _ in self.fields:
            _add_texts(batch.column(name).to_pylist(), content)

    def manifest(self) -> dict[str, Any]:
        tools = {} if self._names.tools is None else {"has_tools": True}
        return {"is_pair": False, "kind": self.kind, **tools}


def _add_texts(texts: list[str | None], content: hashlib._Hash) -> None:
    """Lengths and characters."""
    lengths = [-1 if text is None else len(text) for text in texts]
    content.update(np.array(lengths, "<i8").tobytes())
    content.update("".join(filter(None, texts)).encode())


def labelled_content(data: Data) -> Content:
    """Of rows with labels: text, a pair of texts, or features."""
    return TextContent(data) if data.columns.features is None else FeatureContent(data)


def matrix(batch: pa.RecordBatch) -> np.ndarray:
    """features_BD, float32, of a batch of a corpus file: a view of mapped memory."""
    values: Any = batch.column("features").flatten()  # type: ignore[attr-defined]
    return values.to_numpy().reshape(batch.num_rows, -1)


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared differences of each feature; float64."""

    count: int
    mean_D: np.ndarray
    squares_D: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, features_BD: np.ndarray) -> Moments:
        wide_BD = features_BD.astype(np.float64)
        mean_D = wide_BD.mean(0)
        return cls(len(wide_BD), mean_D, ((wide_BD - mean_D) ** 2).sum(0))

    def joined(self, other: Moments) -> Moments:
        """Of both sets of rows (Chan et al. 1979: no difference of large sums)."""
        count = self.count + other.count
        shift_D = other.mean_D - self.mean_D
        return Moments(
            count,
            self.mean_D + shift_D * other.count / count,
            self.squares_D + other.squares_D + shift_D**2 * self.count * other.count / count,
        )

    @property
    def sd_D(self) -> np.ndarray:
        return np.sqrt(self.squares_D / self.count)
