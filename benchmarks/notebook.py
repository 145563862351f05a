"""Runs docs/notebook.ipynb and saves its outputs in it; needs no Jupyter.

    python -m benchmarks.notebook

Starts Ray; about three minutes on two cores. Standard error is left out, and the folder in which
the cells run is written as /home/me.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from tests.integration.test_notebook import NOTEBOOK, run, source_of


def outputs_of(source: str, scope: dict[str, Any], number: int, here: str) -> list[dict[str, Any]]:
    """As nbformat 4 has them: what the cell prints, and its value."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        value = run(source, scope)
    found: list[dict[str, Any]] = []
    if text := _lines(printed.getvalue(), here):
        found.append({"output_type": "stream", "name": "stdout", "text": text})
    if value is not None:
        data = {"text/plain": _lines(repr(value), here)}
        if hasattr(value, "_repr_html_"):
            data = {"text/html": _lines(value._repr_html_(), here)} | data
        found.append(
            {
                "output_type": "execute_result",
                "execution_count": number,
                "data": data,
                "metadata": {},
            }
        )
    return found


def _lines(text: str, here: str) -> list[str]:
    return text.replace(here, "/home/me").splitlines(keepends=True)


def main() -> int:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        here = str(Path(folder).resolve())
        os.environ["DISTILL_CACHE"] = f"{here}/.cache/distill"
        os.chdir(here)
        scope: dict[str, Any] = {"__name__": "__main__"}
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        for number, cell in enumerate(code, 1):
            cell["execution_count"] = number
            cell["outputs"] = outputs_of(source_of(cell), scope, number, here)
        os.chdir("/")
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
