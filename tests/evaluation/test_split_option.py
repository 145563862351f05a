"""``distill evaluate --split``: a value of the column of splits."""

from pathlib import Path

from typer.testing import CliRunner

from distill.cli import app
from distill.evaluation.source import EvaluationSource, pooled_splits


def test_a_split_without_its_column_is_refused(tmp_path: Path) -> None:
    arguments = ["evaluate", str(tmp_path), "--data", str(tmp_path / "rows.csv")]
    done = CliRunner().invoke(app, [*arguments, "--split", "test"])
    assert done.exit_code == 2
    assert "--split test needs --split-column" in done.output
    for more in (["--split-column", "part"], ["--split-column", "part", "--split", "dev"], []):
        assert "needs" not in CliRunner().invoke(app, [*arguments, *more]).output


def test_files_of_several_splits_are_reported(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text("text,label\na,b\n")
    message = pooled_splits(EvaluationSource(str(tmp_path)))
    assert message is not None
    assert (
        "those of train and test: to measure one split, give only its files with --data" in message
    )
    assert pooled_splits(EvaluationSource(str(tmp_path), split_column="split")) is None
    assert pooled_splits(EvaluationSource(str(tmp_path / "test.csv"))) is None
