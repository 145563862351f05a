"""Columns of chats: lists of messages {role, content}, kept as JSON with sorted keys.

So the same chats have the same fingerprint in every format: Parquet and JSON lines hold lists,
CSV a string of JSON.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from distill.data.refusals import Place, absent_column
from distill.data.source import File
from distill.errors import DataError

KEY = "data.columns.messages"
ROLES = ("system", "developer", "user", "assistant", "tool")
_SHOWN = 60  # characters of a bad value in a message


def chats_in(batch: pa.RecordBatch, name: str, file: File, first_row: int) -> list[str]:
    """The chats of a column, each checked, as canonical JSON.

    A chat without an assistant's message is let through: it has nothing to learn, and such rows are
    counted later. Raises DataError that names the row of any other fault.
    """
    if name not in batch.schema.names:
        raise absent_column(KEY, name, file)
    column = batch.column(name)
    if column.null_count:
        row = first_row + pc.index(column.is_null(), True).as_py()
        raise DataError(f"{KEY} {name!r} is null in {Place(file, row)}: remove the row")
    chats = column.to_pylist()
    return [_canonical(chat, name, Place(file, first_row + i)) for i, chat in enumerate(chats)]


def _canonical(text: str, name: str, place: Place) -> str:
    where = f"{KEY} {name!r} in {place}"
    try:
        chat = json.loads(text)
    except (ValueError, RecursionError):
        raise DataError(
            f"{where} is {text[:_SHOWN]!r}, which is not JSON: a list of messages "
            '{"role": …, "content": …} is needed'
        ) from None
    if not isinstance(chat, list) or not all(isinstance(m, dict) for m in chat) or not chat:
        raise DataError(
            f"{where} is {text[:_SHOWN]}: a list of at least one message "
            '{"role": …, "content": …} is needed'
        )
    for number, message in enumerate(chat, 1):
        _check(message, f"message {number} of {where}")
    # Parquet gives every message of a file the same fields, null where one has none.
    kept = [{k: v for k, v in message.items() if v is not None} for message in chat]
    canonical = json.dumps(kept, sort_keys=True, ensure_ascii=False)
    try:
        canonical.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{where} is not UTF-8 (a lone surrogate): convert the file to UTF-8"
        ) from None
    return canonical


def _check(message: dict[str, Any], where: str) -> None:
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise DataError(
            f"the role of {where} is {str(role)[:_SHOWN]!r}: it must be one of {', '.join(ROLES)}"
        )
    if not isinstance(content, str):
        shown = json.dumps(content)[:_SHOWN]
        raise DataError(f"the content of {where} is {shown}: it must be a string")
