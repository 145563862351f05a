"""A bad configuration is refused before torch and the like are imported: modules are counted, not
seconds. benchmarks/refusal_time.py measures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "ray", "mlflow", "deepspeed", "pyarrow", "rich.table")
COUNTING = """
import sys
from distill.cli import app
try:
    app({arguments!r})
except SystemExit as end:
    code = end.code
loaded = [name for name in {heavy!r} if name in sys.modules]
sys.exit(f"{{loaded}}" if loaded else code)
"""


def outcome(arguments: list[str]) -> tuple[int, str]:
    """Exit code and standard error; the modules that must not be there, where some are."""
    source = COUNTING.format(arguments=arguments, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", ["check", "train", "sweep", "experts", "preview"])
def test_no_command_imports_torch_to_refuse_a_bad_file(command: str, tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text("data: {path: x.csv}\nkd: {alpha: 2}\n")
    code, error = outcome([command, str(config)])
    assert "kd.alpha must be less than or equal to 1, got 2" in error
    assert code == 2, error


@pytest.mark.slow
def test_nor_to_refuse_a_folder_that_is_not_there(tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    (tmp_path / "rows.csv").write_text("text,label\n")
    teachers = "teachers: [{name: a, path: nowhere/a}, {name: b, path: nowhere/b}]"
    config.write_text(f"data: {{path: {tmp_path}/row.csv}}\n{teachers}\n")
    code, error = outcome(["check", str(config)])
    assert code == 2, error
    assert f"data.path: there is no file or folder {tmp_path}/row.csv: did you mean" in error
    assert "teachers.a.path: there is no model folder nowhere/a" in error
    assert "teachers.b.path" in error
