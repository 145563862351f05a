"""`distill export --format onnx`: the file answers as the model does, and what it is like."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow import parquet
from typer.testing import CliRunner

from distill.cli import app
from distill.cli.exporting import render
from distill.errors import ConfigError, DistillError, ModelError, RunFolderError
from distill.export import onnx
from distill.export.formats import export_student
from distill.export.locate import locate
from distill.models.features import FeatureSpace, build_classifier
from distill.models.load import load_classifier, load_tokenizer
from distill.models.reading import Reading, remember
from distill.report.progress import Progress
from tests.export.test_prediction import make_run
from tests.models.tiny_models import save_decoder
from tests.toys import write_data, write_encoder

has_packages = pytest.mark.skipif(
    any(find_spec(name) is None for name in onnx.PACKAGES),
    reason="needs distill[onnx]",
)
COLUMNS = {"text": "text", "label": "label", "domain": "domain", "split": "split"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose student reads texts."""
    root = tmp_path_factory.mktemp("onnx")
    student = write_encoder(root / "exported", num_labels=2)
    model = load_classifier(student)
    remember(model.config, Reading(12, "head"))
    model.save_pretrained(student)
    write_data(root / "data.parquet", 120)
    data = {
        "path": str(root / "data.parquet"),
        "columns": COLUMNS,
        "cache_dir": str(root / "cache"),
    }
    return make_run(root / "run", student, data)


def held_out(run: Path) -> list[dict[str, Any]]:
    rows = parquet.read_table(run.parent / "data.parquet").to_pylist()
    return [row for row in rows if row["split"] == "test"]


@pytest.mark.slow
@has_packages
def test_a_text_classifier_its_measures_and_its_readme(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    exported = export_student(run, out, "onnx", True, None, Progress())
    assert exported is not None
    rows = held_out(run)
    model, tokenizer = load_classifier(run / "student"), load_tokenizer(run / "student")
    with torch.no_grad():
        guesses = [
            model.config.id2label[
                int(model(**tokenizer(r["text"], return_tensors="pt")).logits.argmax())
            ]
            for r in rows
        ]
    accuracy = sum(g == r["label"] for g, r in zip(guesses, rows, strict=True)) / len(rows)
    torch_row, float_row, int8_row = exported.rows
    assert [row.file for row in exported.rows] == [
        "model.safetensors",
        "model.onnx",
        "model.int8.onnx",
    ]
    assert torch_row.accuracy == float_row.accuracy == pytest.approx(accuracy)
    assert torch_row.agreement == float_row.agreement == 1.0 and exported.num_rows == len(rows)
    size = (run / "student" / "model.safetensors").stat().st_size
    assert torch_row.size_mb == size / 1e6
    assert int8_row.size_mb == (out / "model.int8.onnx").stat().st_size / 1e6 < float_row.size_mb
    text = json.loads((out / "export.json").read_text())
    assert text["models"][2]["agreement"] == int8_row.agreement
    assert text["inputs"] == ["input_ids", "attention_mask"]
    # The file names no path of the machine that wrote it.
    assert str(Path(torch.__file__).parent).encode() not in (out / "model.onnx").read_bytes()
    # As the README has it, for any number of rows and tokens.
    (code,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.S)
    code = code.replace("path/to/this/folder", str(out)).replace("model.int8.onnx", "model.onnx")
    texts = [row["text"] for row in rows]
    scope: dict[str, Any] = {}
    exec(code.replace('["some text"]', repr(texts)).replace("print(", "answers = ("), scope)
    assert scope["answers"] == guesses
    table = render(exported)
    assert "agreement: test rows" in str(table.renderables[-2])


@has_packages
@pytest.mark.parametrize(
    ("family", "image", "num", "names"),
    [("mlp", None, 3, ("yes", "no")), ("cnn", (4, 4, 1), 16, ("no", "yes"))],
)
def test_classifiers_of_features(
    tmp_path: Path,
    family: str,
    image: tuple[int, int, int] | None,
    num: int,
    names: tuple[str, str],
) -> None:
    import pyarrow as pa

    space = FeatureSpace(("x",), (0.5,) * num, (2.0,) * num, image)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_classifier(family, space, names, layers=2, hidden=8, dropout=0.0)
    model.save_pretrained(tmp_path / "exported")
    points = np.random.default_rng(0).normal(size=(30, num)).astype(np.float32)
    with torch.no_grad():
        best = model(torch.from_numpy(points)).logits.argmax(1).tolist()
    labels = [names[index] for index in best]
    labels[0] = {"no": "yes", "yes": "no"}[labels[0]]  # one that the model gets wrong
    labels[10:] = ["no", "yes"] * 10
    split = ["test"] * 10 + ["train"] * 10 + ["validation"] * 10
    table = pa.table({"x": list(points), "label": labels, "split": split})
    parquet.write_table(table, tmp_path / "data.parquet")
    data = {
        "path": str(tmp_path / "data.parquet"),
        "columns": {"features": "x", "split": "split"},
        "cache_dir": str(tmp_path / "cache"),
    }
    run = make_run(tmp_path / "run", tmp_path / "exported", data)
    exported = export_student(run, tmp_path / "out", "onnx", False, None, Progress())
    assert exported is not None
    assert [(row.accuracy, row.agreement) for row in exported.rows] == [(0.9, 1.0)] * 2
    parquet.write_table(table.slice(0, 10), tmp_path / "own.parquet")
    own = str(tmp_path / "own.parquet")
    named = export_student(run, tmp_path / "named", "onnx", False, own, Progress())
    assert named is not None
    assert [(row.accuracy, row.agreement) for row in named.rows] == [(0.9, 1.0)] * 2
    logits = onnx.session_of(tmp_path / "out" / "model.onnx")({"features": torch.tensor(points)})
    with torch.no_grad():
        np.testing.assert_allclose(logits, model(torch.tensor(points)).logits, atol=1e-5)
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text(), re.S)
    exec(code.replace("path/to/this/folder", str(tmp_path / "out")), {})


@pytest.mark.slow
@has_packages
def test_a_decoder_is_read_at_each_rows_last_token(tmp_path: Path) -> None:
    import pyarrow as pa
    from transformers import AutoModelForSequenceClassification

    from tests.models.tiny_models import decoder_config, save_language_tokenizer

    config = decoder_config("gpt2")
    config.id2label, config.label2id = {0: "no", 1: "yes"}, {"no": 0, "yes": 1}
    config.num_hidden_layers = 1
    with torch.random.fork_rng():
        torch.manual_seed(1)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(
            tmp_path / "exported"
        )
    save_language_tokenizer(tmp_path / "exported")
    texts = ["the good film", "a", "not very bad plot was the good film is a"] * 4
    split = ["test"] * 4 + ["train"] * 4 + ["validation"] * 4
    table = pa.table({"text": texts, "label": ["no", "yes"] * 6, "split": split})
    parquet.write_table(table, tmp_path / "data.parquet")
    data = {
        "path": str(tmp_path / "data.parquet"),
        "columns": {"split": "split"},
        "cache_dir": str(tmp_path / "cache"),
    }
    run = make_run(tmp_path / "run", tmp_path / "exported", data)
    # Rows of other lengths in one batch: a probability that differs would be refused.
    exported = export_student(run, tmp_path / "out", "onnx", False, None, Progress())
    assert exported is not None and exported.rows[1].agreement == 1.0


def test_what_cannot_be_exported(run: Path, tmp_path: Path) -> None:
    def export(*args: Any) -> Any:
        return export_student(*args, Progress())

    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="--format gguf: use one of hf, onnx"):
        export(run, out, "gguf", False, None)
    with pytest.raises(ConfigError, match="--int8 goes with --format onnx"):
        export(run, out, "hf", True, None)
    with pytest.raises(ModelError, match="neither a run nor"):
        export(tmp_path, out, "hf", False, None)
    assert not out.exists()


@has_packages
def test_refusals_of_onnx(run: Path, tmp_path: Path) -> None:
    save_decoder(tmp_path / "lm")
    out = tmp_path / "out"
    refused: list[tuple[Path, type[DistillError], str]] = [
        (tmp_path / "lm", ModelError, "is a language model: .* use --format hf"),
        (run.parent / "exported", ConfigError, "is not in a run folder"),
    ]
    for folder, kind, message in refused:
        with pytest.raises(kind, match=message):
            export_student(folder, out, "onnx", False, None, Progress())
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(RunFolderError, match="files that are not those"):
        export_student(run, out, "onnx", False, None, Progress())
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_a_file_that_answers_otherwise_is_refused() -> None:
    own = np.array([[0.2, 0.8], [0.5, 0.5]])
    onnx._check_equal(own + 5e-4, own)
    with pytest.raises(ModelError, match=r"differs by 0\.002"):
        onnx._check_equal(own + 2e-3, own)
    with pytest.raises(ModelError, match="differs by nan"):
        onnx._check_equal(own * np.nan, own)


def test_the_command_copies_a_run_a_trial_or_a_student(run: Path, tmp_path: Path) -> None:
    trial = run / "trials" / "t1"
    trial.mkdir(parents=True)
    (trial / "student").symlink_to(run.parent / "exported")
    for number, folder in enumerate((run, trial, run / "student")):
        out = tmp_path / str(number)
        done = CliRunner().invoke(app, ["export", str(folder), "--out", str(out), "--json"])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout.splitlines()[-1])["student"] == str(out)
        assert load_classifier(out).config.id2label == {0: "no", 1: "yes"}
    assert locate(trial).run == run
