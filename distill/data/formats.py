"""The file formats that are read, by the ending of a file; Parquet and Arrow themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.types as pt
from pyarrow import fs as pafs
from pyarrow import ipc, parquet

from distill.data.csv_format import csv_header, read_csv
from distill.data.file_format import (
    COMPRESSIONS,
    NUM_ROWS,
    Columns,
    Header,
    HeaderReader,
    Kept,
    Reader,
    present,
    uncompressed,
)
from distill.data.json_format import json_header, read_json

NUM_BYTES = 4 << 20  # of a batch, by the mean size of its rows; of a read from Parquet
ENDINGS = {
    "parquet": (".parquet",),
    "arrow": (".arrow", ".feather"),
    "json": (".jsonl", ".ndjson", ".json"),
    "csv": (".csv", ".tsv"),
}
TEXT = ("json", "csv")


def format_of(path: str) -> str | None:
    """The format that a file's ending names; None if it is not known."""
    plain, compression = uncompressed(path.lower())
    for kind, endings in ENDINGS.items():
        if plain.endswith(endings) and (compression is None or kind in TEXT):
            return kind
    return None


def endings() -> str:
    """All endings that are read, for messages."""
    known = ", ".join(end for kind in ENDINGS.values() for end in kind)
    packed = " or ".join(", ".join(COMPRESSIONS).rsplit(", ", 1))
    return f"{known} are read, text also with {packed} after it"


def read_parquet(
    filesystem: pafs.FileSystem, path: str, uri: str, columns: Columns, kept: Kept
) -> Iterator[pa.RecordBatch]:
    with filesystem.open_input_file(path) as stream:
        # By itself pyarrow keeps what it reads ahead: in the end the whole file.
        reader = parquet.ParquetFile(stream, pre_buffer=False, buffer_size=NUM_BYTES)
        present_columns = present(reader.schema_arrow.names, columns)
        groups = [reader.metadata.row_group(i) for i in range(reader.metadata.num_row_groups)]
        row_bytes = sum(g.total_byte_size for g in groups) // max(reader.metadata.num_rows, 1)
        num_rows = max(1, min(NUM_ROWS, NUM_BYTES // max(row_bytes, 1)))
        yield from reader.iter_batches(num_rows, columns=present_columns)


def read_arrow(
    filesystem: pafs.FileSystem, path: str, uri: str, columns: Columns, kept: Kept
) -> Iterator[pa.RecordBatch]:
    """Both IPC formats: ``datasets`` writes streams under the ending that others use for files."""
    with filesystem.open_input_file(path) as stream:
        is_file = stream.read(6) == b"ARROW1"
        stream.seek(0)
        if not is_file:
            with ipc.open_stream(stream) as reader:
                for batch in reader:
                    yield batch.select(present(batch.schema.names, columns))
            return
        with ipc.open_file(stream) as reader:
            for i in range(reader.num_record_batches):
                batch = reader.get_batch(i)
                yield batch.select(present(batch.schema.names, columns))


def parquet_header(filesystem: pafs.FileSystem, path: str, uri: str, columns: Columns) -> Header:
    with filesystem.open_input_file(path) as stream:
        return _schema_header(parquet.read_schema(stream))


def arrow_header(filesystem: pafs.FileSystem, path: str, uri: str, columns: Columns) -> Header:
    with filesystem.open_input_file(path) as stream:
        is_file = stream.read(6) == b"ARROW1"
        stream.seek(0)
        with (ipc.open_file if is_file else ipc.open_stream)(stream) as reader:
            return _schema_header(reader.schema)


def _schema_header(schema: pa.Schema) -> Header:
    nested = {}
    for column in schema:
        kind = column.type
        if pt.is_list(kind) or pt.is_large_list(kind):
            kind = kind.value_type
        if pt.is_struct(kind):
            nested[column.name] = [kind.field(i).name for i in range(kind.num_fields)]
    raw = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        features = json.loads(raw)["info"]["features"]
    except (ValueError, KeyError, TypeError):  # another writer's: no names are declared
        features = None
    return Header(schema.names, nested, class_names(features))


def class_names(features: Any) -> dict[str, tuple[str, ...]]:
    """The names of each ClassLabel column of ``datasets`` features as JSON."""
    return {
        name: tuple(feature["names"])
        for name, feature in (features if isinstance(features, dict) else {}).items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        if isinstance(feature.get("names"), list)
    }


READERS: dict[str, Reader] = {
    "parquet": read_parquet,
    "arrow": read_arrow,
    "csv": read_csv,
    "json": read_json,
}
HEADERS: dict[str, HeaderReader] = {
    "parquet": parquet_header,
    "arrow": arrow_header,
    "csv": csv_header,
    "json": json_header,
}
