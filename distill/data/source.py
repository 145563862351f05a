"""Data files as a stream of record batches of strings, whatever their format and place.

``find_files`` turns ``data.path`` into files, ``read_batches`` streams one of them. Formats are
Parquet, Arrow (file or stream; Feather), JSON lines (or one JSON array), CSV (separated by commas,
semicolons or tabs), and folders that Hugging Face ``datasets`` saved. Folders named ``key=value``
(Hive) are columns that a file may lack. A URI goes to pyarrow's file systems first, else to fsspec.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs as pafs

from distill.data.csv_format import TAB
from distill.data.file_format import Header, Kept
from distill.data.formats import HEADERS, READERS, TEXT, class_names, endings, format_of
from distill.data.strings import as_json, as_strings
from distill.data.usual_columns import USUAL, proposals
from distill.errors import DataError
from distill.models.hub import download_command, not_found

SIDECARS = {
    "croissant.json",
    "dataset_dict.json",
    "dataset_info.json",
    "dataset_infos.json",
    "state.json",
}
"""Files about the data next to it, in clones of the Hugging Face Hub and in saved datasets."""
NUM_LISTED = 30  # columns or labels in a message
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class File:
    """One data file. ``uri`` is what messages call it."""

    filesystem: pafs.FileSystem
    path: str
    uri: str
    format: str  # a key of formats.READERS
    size: int  # bytes
    mtime_ns: int | None  # None where the file system keeps none
    split: str | None = None  # subfolder of a saved DatasetDict; once assigned, one of SPLITS
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of a saved folder
    below: str = ""  # its path below data.path, which may name its split; "" of a lone file

    def identity(self) -> tuple[str, int, str, str | None]:
        """What changes when the file does: place, size and time, or the bytes without a time."""
        if self.mtime_ns is not None:
            return self.uri, self.size, str(self.mtime_ns), self.split
        digest = hashlib.sha256()
        with self.filesystem.open_input_stream(self.path, compression=None) as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        return self.uri, self.size, digest.hexdigest(), self.split

    def class_names_of(self, column: str) -> tuple[str, ...] | None:
        """Of a ClassLabel column, as the saved folder or the file's own schema declares it."""
        return self.class_names.get(column) or self._own_class_names.get(column)

    @cached_property
    def _own_class_names(self) -> dict[str, tuple[str, ...]]:
        return {} if self.format in TEXT else self.header.class_names

    @cached_property
    def folder_columns(self) -> dict[str, str | None]:
        """Columns that the folders of its path give: ``label=neg/part-0.parquet``."""
        pairs = [name.split("=", 1) for name in self.path.split("/")[:-1] if name.find("=") > 0]
        return {unquote(k): None if v == HIVE_NULL else unquote(v) for k, v in pairs}

    @cached_property
    def header(self) -> Header:
        return HEADERS[self.format](self.filesystem, self.path, self.uri, ())


def find_files(paths: str | tuple[str, ...]) -> list[File]:
    """The files of ``data.path``, in the order given and sorted by name within a folder or glob.

    Raises DataError for a path without files, an unknown format or an unreachable file system.
    """
    found: list[File] = []
    paths = (paths,) if isinstance(paths, str) else paths
    for path in paths:
        try:
            found.extend(_find(path))
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"data.path {path!r} cannot be read: {_first_line(error)}{_download(path)}"
            ) from None
    if not found:
        raise DataError("data.path is empty: set it to at least one file, folder, glob or URI")
    return found if len(paths) == 1 else _below_common_folder(found)


def read_batches(
    file: File,
    columns: tuple[str, ...],
    kept: Kept = Kept(),  # noqa: B008 (immutable)
) -> Iterator[pa.RecordBatch]:
    """Record batches with those of ``columns`` that the file has, each as UTF-8 large_string.

    Integers and booleans become "0", "1", …; ClassLabel integers their names (-1: null). Columns
    in ``kept`` come too: numbers keep their type (CSV: bytes), chats become JSON. A column that the
    file lacks and a folder of its path names has that folder's value in every row. Raises DataError
    for a file that is not of its format, rows without any of the columns, a value that is no
    string, or bad UTF-8.
    """
    first_row = 1
    try:
        reader = READERS[file.format]
        needed = columns + kept.numbers + kept.chats
        for batch in reader(file.filesystem, file.path, file.uri, needed, kept):
            if batch.num_rows and not batch.schema.names:
                raise DataError(
                    f"data.path: {file.uri} has none of the columns {listed(needed)}: "
                    f"{columns_shown(file)}{_proposed(needed, file)}"
                )
            arrays = {
                name: as_strings(
                    batch.column(name),
                    name,
                    file.uri,
                    first_row,
                    file.class_names_of(name),
                    name in kept.groups,
                )
                for name in columns
                if name in batch.schema.names
            }
            for name in set(kept.numbers) & set(batch.schema.names):
                arrays[name] = batch.column(name)
            for name in set(kept.chats) & set(batch.schema.names):
                arrays[name] = as_json(batch.column(name), name, file.uri, first_row)
            for name in set(columns) & set(file.folder_columns) - set(batch.schema.names):
                value = [file.folder_columns[name]] * batch.num_rows
                arrays[name] = pa.array(value, pa.large_string())
            yield pa.RecordBatch.from_pydict(arrays)
            first_row += batch.num_rows
    except (OSError, pa.ArrowException, UnicodeDecodeError, RecursionError) as error:
        raise DataError(
            f"data.path: {file.uri} cannot be read as {file.format}: {_first_line(error)}"
        ) from None


def column_names(file: File) -> list[str]:
    """All columns of a file, those of its folders last; for messages."""
    return list(dict.fromkeys([*_header(file).names, *file.folder_columns]))


def columns_shown(file: File, is_hinting: bool = True) -> str:
    """The columns of a file, the fields of nested ones, and what separates those of CSV;
    ``is_hinting``: what to do with nested ones."""
    header = _header(file)
    fields = {name: f"{name} {{{', '.join(inner)}}}" for name, inner in header.nested.items()}
    shown = listed([fields.get(name, name) for name in column_names(file)]) or "none"
    if header.separator is not None:
        shown += f" (separated by {'tabs' if header.separator == TAB else repr(header.separator)})"
    is_hinting = is_hinting and bool(fields)
    hint = "; flatten nested objects, or write one object per row" if is_hinting else ""
    return f"its columns are {shown}{hint}"


def _proposed(missing: Sequence[str], file: File) -> str:
    """Columns that may have been meant by names that are those of their keys."""
    keys = {name: f"data.columns.{name}" for name in missing if name in USUAL}
    return proposals(keys, column_names(file))


def listed(names: Sequence[str]) -> str:
    """The first of them, in a message."""
    more = f" and {len(names) - NUM_LISTED} more" if len(names) > NUM_LISTED else ""
    return ", ".join(names[:NUM_LISTED]) + more


def _header(file: File) -> Header:
    try:
        return file.header
    except (OSError, pa.ArrowException, UnicodeDecodeError, RecursionError):
        return Header([])


def _find(path: str) -> list[File]:
    if path.startswith("hf:/"):  # before a file system for it queries the Hub
        raise DataError(f"data.path {path!r} cannot be read{_download(path)}")
    filesystem, inner = _resolve(path)
    info = filesystem.get_file_info(inner)
    if info.type == pafs.FileType.File:
        return [_file(filesystem, info, path)]
    if info.type == pafs.FileType.Directory:
        return _in_folder(filesystem, inner, path)
    if not _has_magic(path):
        raise DataError(f"data.path: {not_found('file or folder', path, is_data=True)}")
    folder = re.split(r"[*?\[]", inner, maxsplit=1)[0].rpartition("/")[0]
    matches = re.compile(_glob_regex(inner)).fullmatch
    infos = [i for i in _walk(filesystem, folder or "/") if matches(i.path)]
    if not infos:
        raise DataError(f"data.path: the glob {path!r} matches no file: check the pattern")
    return [
        _file(filesystem, info, _shown(path, inner, info.path), below=_below(folder, info.path))
        for info in infos
    ]


def _below_common_folder(files: list[File]) -> list[File]:
    """Of a list of paths: below the innermost folder that holds all of them."""
    if len({file.filesystem.type_name for file in files}) > 1:
        return [replace(file, below=file.below or posixpath.basename(file.path)) for file in files]
    folder = posixpath.commonpath([posixpath.dirname(file.path) for file in files])
    return [replace(file, below=_below(folder, file.path)) for file in files]


def _below(folder: str, path: str) -> str:
    return posixpath.relpath(path, folder or "/")


def _download(path: str) -> str:
    """What to type for an address of the Hugging Face Hub."""
    # Of a file in a data set, the data set.
    name = "/".join(re.split("/+", path)[:4]) if path.startswith("hf:/") else path
    command = download_command(name, is_data=True) if ":/" in path else None
    return f"; distill does not contact the Hub, download it first: {command}" if command else ""


def _in_folder(filesystem: pafs.FileSystem, folder: str, shown: str) -> list[File]:
    if splits := _read_json(filesystem, f"{folder}/dataset_dict.json"):
        return [
            file
            for split in splits.get("splits", [])
            for file in _saved(filesystem, f"{folder}/{split}", f"{shown}/{split}", split)
        ]
    if _read_json(filesystem, f"{folder}/state.json"):
        return _saved(filesystem, folder, shown, None)
    infos = [
        info
        for info in _walk(filesystem, folder)
        if format_of(info.path)
        and posixpath.basename(info.path) not in SIDECARS
        and not any(p[0] in "._" for p in posixpath.relpath(info.path, folder).split("/"))
    ]
    formats = sorted({str(format_of(info.path)) for info in infos})
    if not infos:
        raise DataError(f"data.path: the folder {shown!r} holds no data file: {endings()}")
    if len(formats) > 1:
        raise DataError(
            f"data.path: the folder {shown!r} mixes {' and '.join(formats)} files: set data.path "
            f"to the ones to use, such as {_of_one_format(infos, formats[-1], folder, shown)}"
        )
    return [
        _file(filesystem, info, _shown(shown, folder, info.path), below=_below(folder, info.path))
        for info in infos
    ]


def _of_one_format(infos: list[pafs.FileInfo], kind: str, folder: str, shown: str) -> str:
    """A glob for the files of one format in a folder."""
    path = next(info.path for info in infos if format_of(info.path) == kind)
    inner = posixpath.relpath(path, folder)
    return f"{shown}/{'**/' if '/' in inner else ''}*{posixpath.splitext(inner)[1]}"


def _saved(filesystem: pafs.FileSystem, folder: str, shown: str, split: str | None) -> list[File]:
    """The Arrow files of one Hugging Face ``Dataset.save_to_disk`` folder."""
    state = _read_json(filesystem, f"{folder}/state.json")
    if state is None:
        raise DataError(f"data.path: {shown} has no state.json: save the dataset again")
    info = _read_json(filesystem, f"{folder}/dataset_info.json") or {}
    names = class_names(info.get("features"))
    files = []
    for entry in state["_data_files"]:
        info = filesystem.get_file_info(f"{folder}/{entry['filename']}")
        if info.type != pafs.FileType.File:
            raise DataError(
                f"data.path: {shown} lists {entry['filename']}, which is missing: "
                "copy the whole folder again"
            )
        uri, below = f"{shown}/{entry['filename']}", f"{split}/{entry['filename']}" if split else ""
        files.append(_file(filesystem, info, uri, split, names, below))
    return files


def _file(
    filesystem: pafs.FileSystem,
    info: pafs.FileInfo,
    shown: str,
    split: str | None = None,
    class_names: dict[str, tuple[str, ...]] | None = None,
    below: str = "",
) -> File:
    kind = format_of(info.path)
    if kind is None:
        raise DataError(f"data.path: {shown!r} has an unknown file extension: {endings()}")
    mtime_ns = None if info.mtime is None else info.mtime_ns
    return File(
        filesystem,
        info.path,
        shown,
        kind,
        info.size or 0,
        mtime_ns,
        split,
        class_names or {},
        below,
    )


def _resolve(path: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a path or URI and the path inside it, wildcards untouched."""
    if "://" not in path:
        # absolute, because the identity of a cached corpus must not depend on the working folder
        return pafs.LocalFileSystem(), Path(path).expanduser().absolute().as_posix()
    head, magic, tail = path, "", ""
    if match := re.search(r"/[^/]*[*?\[]", path):
        head, magic, tail = path[: match.start()], "/", path[match.start() + 1 :]
    try:
        filesystem, inner = pafs.FileSystem.from_uri(head)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ImportError):
        filesystem, inner = _resolve_fsspec(head, path)
    return filesystem, inner.rstrip("/") + magic + tail


def _resolve_fsspec(head: str, path: str) -> tuple[pafs.FileSystem, str]:
    import fsspec

    try:
        filesystem, inner = fsspec.core.url_to_fs(head)
    except (ValueError, ImportError) as error:
        raise DataError(
            f"data.path {path!r}: neither pyarrow nor fsspec can open it ({_first_line(error)}): "
            "install the fsspec package of this protocol, or copy the files"
        ) from None
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), inner


def _walk(filesystem: pafs.FileSystem, folder: str) -> list[pafs.FileInfo]:
    selector = pafs.FileSelector(folder, allow_not_found=True, recursive=True)
    infos = filesystem.get_file_info(selector)
    return sorted((i for i in infos if i.type == pafs.FileType.File), key=lambda i: i.path)


def _read_json(filesystem: pafs.FileSystem, path: str) -> dict[str, Any] | None:
    if filesystem.get_file_info(path).type != pafs.FileType.File:
        return None
    with filesystem.open_input_stream(path) as stream:
        try:
            content = json.loads(stream.read())
        except ValueError:
            raise DataError(
                f"data.path: {path} is not valid JSON: save the dataset again"
            ) from None
    return content if isinstance(content, dict) else None


def _shown(path: str, inner: str, found: str) -> str:
    """How messages call a file found under a folder or glob: in the user's own spelling."""
    root = re.split(r"[*?\[]", inner, maxsplit=1)[0]
    start = re.split(r"[*?\[]", path, maxsplit=1)[0]
    return start + found[len(root) :] if found.startswith(root) else found


def _has_magic(path: str) -> bool:
    return any(character in path for character in "*?[")


def _glob_regex(pattern: str) -> str:
    """``*`` and ``?`` stay within a folder, ``**/`` crosses folders, as in the shell."""
    tokens = re.findall(r"\*\*/|\*+|\?|\[[^\]]+\]|.", pattern)
    special = {"**/": "(?:.*/)?", "*": "[^/]*", "**": ".*", "?": "[^/]"}
    return "".join(
        special.get(t) or (t.replace("[!", "[^") if len(t) > 1 else re.escape(t)) for t in tokens
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
