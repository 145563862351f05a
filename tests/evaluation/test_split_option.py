"""``distill evaluate --split``: of nothing but a column of splits."""

from pathlib import Path

from typer.testing import CliRunner

from distill.cli import app


def test_a_split_without_its_column_is_refused(tmp_path: Path) -> None:
    arguments = ["evaluate", str(tmp_path), "--data", str(tmp_path / "rows.csv")]
    done = CliRunner().invoke(app, [*arguments, "--split", "test"])
    assert done.exit_code == 2
    assert "--split test needs --split-column" in done.output
    for more in (["--split-column", "part"], ["--split-column", "part", "--split", "dev"], []):
        assert "needs" not in CliRunner().invoke(app, [*arguments, *more]).output
