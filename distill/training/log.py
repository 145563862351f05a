"""Reading the log that a fit writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Tail:
    """The new lines of a growing JSONL file; an incomplete last line is read when complete."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.num_broken = 0
        """Complete lines that are not JSON objects: torn by a killed writer."""
        self._offset = 0
        self._partial = b""

    def read(self) -> list[dict[str, Any]]:
        """Records since the last call; none while the file is not there yet."""
        try:
            with self.path.open("rb") as file:
                if file.seek(0, 2) < self._offset:  # rewritten
                    self._offset, self._partial = 0, b""
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return []
        self._offset += len(new)
        *lines, self._partial = (self._partial + new).split(b"\n")
        records = []
        for line in filter(None, lines):
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if isinstance(record, dict):
                records.append(record)
            else:
                self.num_broken += 1
        return records
