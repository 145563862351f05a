"""Data given as objects: written once into the data cache, under their content's fingerprint.

pandas, pyarrow, ``datasets`` and whatever exports the Arrow C stream (polars, duckdb). None of them
but pyarrow is imported here: an object of theirs brings its library along.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from distill.data.tables import table_of as table_of_objects
from distill.errors import DataError
from distill.names import folder_name

KINDS = (
    "a path, a pandas DataFrame, a pyarrow Table, a datasets.Dataset, a dict of columns or a list "
    "of rows, or a dict of such tables by split (a DatasetDict)"
)


def path_of(data: Any, cache: Path) -> str | list[str]:
    """``data.path`` of any data: a path stays, a table becomes a Parquet file below ``cache``.

    A dict of tables by split (a DatasetDict) becomes a folder with a file for each split. The same
    content gives the same path, which is not written again. Raises DataError for other objects.
    """
    if isinstance(data, str | Path):
        return str(data)
    if isinstance(data, list | tuple) and data and all(isinstance(d, str | Path) for d in data):
        return [str(path) for path in data]
    tables = splits_of(data)
    if tables is None:
        return str(stored({"data": arrow_of(data)}, cache) / "data.parquet")
    return str(stored({name: arrow_of(table) for name, table in tables.items()}, cache))


def splits_of(data: Any) -> dict[str, Any] | None:
    """The tables of a DatasetDict, or of a dict like it; None for one table."""
    if not isinstance(data, Mapping) or not data or not all(map(_is_table, data.values())):
        return None
    for name in data:
        if not isinstance(name, str) or folder_name(name) != name:
            raise DataError(f"data: the split {name!r} cannot be used as a file name: rename it")
    return dict(data)


def _is_table(data: Any) -> bool:
    return (
        isinstance(data, pa.Table | pa.RecordBatch)
        or _library(data) in ("pandas", "datasets")
        or hasattr(data, "__arrow_c_stream__")
    )


def _library(data: Any) -> str:
    return type(data).__module__.partition(".")[0]


def arrow_of(data: Any) -> pa.Table:
    """One table. ClassLabel names of ``datasets`` stay in the schema, from where they are read."""
    try:
        table = _arrow_of(data)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, DataError):
            raise
        first = str(error).strip().partition("\n")[0]
        raise DataError(
            f"data: cannot convert the {type(data).__name__} to a table ({first})"
        ) from None
    if not table.num_rows:
        raise DataError(f"data: the {type(data).__name__} has no rows: give one with rows")
    return table


def _arrow_of(data: Any) -> pa.Table:
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if _library(data) == "pandas" and hasattr(data, "columns"):
        return pa.Table.from_pandas(data, preserve_index=False)
    if _library(data) == "datasets":
        return _of_datasets(data)
    if hasattr(data, "__arrow_c_stream__"):
        return pa.table(data)
    if isinstance(data, Mapping) and data:
        return pa.table(dict(data))
    if isinstance(data, list) and data and all(isinstance(row, Mapping) for row in data):
        return table_of_objects([dict(row) for row in data])
    raise DataError(f"data is a {type(data).__name__}: give {KINDS}")


def _of_datasets(data: Any) -> pa.Table:
    if not hasattr(data, "with_format") or not hasattr(data, "num_rows"):
        raise DataError(
            f"data is a datasets.{type(data).__name__}, which has no length: give a Dataset, such "
            "as Dataset.from_list(list(data))"
        )
    table = data.with_format("arrow")[:]
    # What the library's own to_parquet writes: the schema that says what a ClassLabel is called.
    return table.replace_schema_metadata(data.features.arrow_schema.metadata)


def stored(tables: Mapping[str, pa.Table], cache: Path) -> Path:
    """The folder with a Parquet file for each table; written next to it and renamed."""
    root = cache.absolute() / "tables"
    root.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=root, prefix=".tmp-"))
    try:
        for name, table in tables.items():
            parquet.write_table(table, partial / f"{name}.parquet")
        return placed(partial, root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def placed(partial: Path, root: Path, prefix: str = "") -> Path:
    """``partial`` renamed to its files' fingerprint, unless that is there already."""
    folder = root / f"{prefix}{fingerprint(partial)[:32]}"
    if not folder.exists():
        partial.chmod(0o755)  # mkdtemp's 0700 would shut out others who share the cache
        try:
            os.rename(partial, folder)
        except OSError:  # another process was first
            if not folder.exists():
                raise
    return folder


def fingerprint(folder: Path) -> str:
    """sha256 of the names and bytes of a folder's files."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.relative_to(folder).as_posix()}\0{digest}\n".encode())
    return whole.hexdigest()
