"""docs/notebook.ipynb: every cell runs in order, and its saved outputs are of this version."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

import distill

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"


def cells() -> list[dict[str, Any]]:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def source_of(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def run(source: str, scope: dict[str, Any]) -> Any:
    """The value of a cell: of its last line, where that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), scope)
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), "cell", "eval"), scope)


def test_it_shows_the_functions_and_saved_outputs_are_whole() -> None:
    """``python -m benchmarks.notebook`` saves them."""
    whole = "\n".join(map(source_of, cells()))
    called = set(re.findall(r"\bdistill\.(\w+)\(", whole))
    assert called <= set(distill.__all__)
    assert {"check", "train", "sweep", "evaluate", "export", "report"} <= called
    has_outputs = any(cell["outputs"] for cell in cells())
    for cell in cells():
        kinds = [output["output_type"] for output in cell["outputs"]]
        assert "error" not in kinds
        is_shown = isinstance(ast.parse(source_of(cell)).body[-1], ast.Expr)
        assert bool(kinds) or not (is_shown and has_outputs), source_of(cell)
    # Written on some machine, whose paths are nobody's business.
    assert not re.search(r"/tmp/|/home/(?!me/)|/root/", NOTEBOOK.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_every_cell_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    scope: dict[str, Any] = {"__name__": "__main__"}
    # A trial less, for the time.
    sources = [source_of(cell).replace("[8, 16, 64]", "[8, 16]") for cell in cells()]
    shown = {source: run(source, scope) for source in sources}
    for value in shown.values():
        if hasattr(value, "_repr_html_"):
            assert value._repr_html_().startswith("<div")
    result, swept = scope["result"], scope["swept"]
    assert result.metrics["test.accuracy"] > 0.85
    assert [row.name for row in result.table][:2] == ["forest", "regression"]
    assert len(swept.trials) == 2 and swept.champion in swept.frontier
    held_out = scope["held_out"]
    assert scope["predicted"].table.num_rows == len(held_out)
    hits = [p == t for p, t in zip(scope["predicted"].predictions, held_out["label"], strict=True)]
    assert sum(hits) / len(hits) == pytest.approx(scope["evaluated"].metrics["test.accuracy"])
    assert (tmp_path / "predictions.parquet").is_file()
