"""`distill predict`: labels, probabilities and generated text for every row of a file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import csv, parquet
from typer.testing import CliRunner

from distill.cli import app
from distill.config.yaml_text import write_yaml
from distill.errors import DataError, DistillError, ModelError, RunFolderError
from distill.export.prediction import check_out, predict
from distill.export.request import ColumnOptions, PredictionRequest
from distill.models.features import FeatureSpace, build_classifier
from distill.models.load import load_classifier, load_tokenizer
from distill.models.reading import Reading, remember
from tests.models.tiny_models import save_decoder
from tests.toys import write_encoder

TEXTS = ["the plot was good", "a bad saw", "it was really very awful soup", "fine", "bad"]


class Listener:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.updates: list[tuple[str, Any, Any]] = []

    def say(self, message: str) -> None:
        self.lines.append(message)

    def update(self, label: str, done: Any = None, total: Any = None) -> None:
        self.updates.append((label, done, total))


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of no/yes that was shown 6 tokens of a text."""
    folder = write_encoder(tmp_path_factory.mktemp("student") / "student", num_labels=2)
    model = load_classifier(folder)
    remember(model.config, Reading(6, "tail"))
    model.save_pretrained(folder)
    return folder


def make_run(folder: Path, student: Path, data: dict[str, Any], **changes: Any) -> Path:
    """A run's folder, as far as predict reads it."""
    folder.mkdir(parents=True)
    (folder / "student").symlink_to(student)
    (folder / "experiment.json").write_text("{}")
    raw = {"data": {"path": "elsewhere.parquet"} | data, "output": str(folder)} | changes
    (folder / "config.yaml").write_text(write_yaml(raw))
    return folder


def want(student: Path, texts: list[str]) -> np.ndarray:
    """Probabilities by transformers alone, row by row: no batch, no padding."""
    model, tokenizer = load_classifier(student), load_tokenizer(student)
    found = []
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        if len(ids) > 6:
            ids = [ids[0], *ids[-5:]]
        with torch.no_grad():
            found.append(model(torch.tensor([ids])).logits.double().softmax(-1)[0].numpy())
    return np.stack(found)


def rows_of(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return parquet.read_table(path).to_pylist()
    if path.suffix == ".csv":
        return csv.read_csv(path).to_pylist()
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "csv"])
def test_labels_and_probabilities_follow_the_columns_in_order(
    tmp_path: Path, student: Path, ending: str
) -> None:
    ids = list(range(10, 10 + len(TEXTS)))
    parquet.write_table(pa.table({"id": ids, "text": TEXTS}), tmp_path / "in.parquet")
    listener = Listener()
    request = PredictionRequest(student, str(tmp_path / "in.parquet"), batch_size=2)
    predicted = predict(request, listener)
    rows = rows_of(predicted.write(tmp_path / f"out.{ending}"))
    names = ["id", "text", "prediction", "probability", "probability.no", "probability.yes"]
    assert [list(row) for row in rows] == [names] * len(TEXTS)
    assert [(row["id"], row["text"]) for row in rows] == list(zip(ids, TEXTS, strict=True))
    probs = want(student, TEXTS)
    found = [[row["probability.no"], row["probability.yes"]] for row in rows]
    np.testing.assert_allclose(found, probs, atol=1e-6)
    assert [row["prediction"] for row in rows] == [("no", "yes")[i] for i in probs.argmax(1)]
    np.testing.assert_allclose([row["probability"] for row in rows], probs.max(1), atol=1e-6)
    assert listener.updates == [("predicting", done, 5) for done in (2, 4, 5)]
    assert listener.lines[-1] == "1 of 5 rows are truncated to 6 tokens (tail)"


def test_a_run_names_the_columns_and_options_replace_them(tmp_path: Path, student: Path) -> None:
    run = make_run(tmp_path / "run", student, {"columns": {"text": "review"}})
    table = pa.table({"review": TEXTS, "other": TEXTS[::-1]})
    parquet.write_table(table, tmp_path / "in.parquet")

    def labels(**named: str) -> list[str]:
        request = PredictionRequest(run, str(tmp_path / "in.parquet"), ColumnOptions(**named))
        return predict(request, Listener()).added["prediction"]

    own = [("no", "yes")[i] for i in want(student, TEXTS).argmax(1)]
    assert labels() == own
    assert labels(text="other") == own[::-1]


def test_csv_values_stay_as_they_are_written(tmp_path: Path, student: Path) -> None:
    (tmp_path / "in.csv").write_text('id,text\n007,"a bad, bad saw"\n008,fine\n')
    out = predict(PredictionRequest(student, str(tmp_path / "in.csv")), Listener()).write(
        tmp_path / "o.csv"
    )
    first, second, _ = out.read_text().splitlines()
    assert first.startswith('"id","text","prediction"')
    assert second.startswith('"007","a bad, bad saw",')


def test_json_rows_keep_their_fields(tmp_path: Path, student: Path) -> None:
    rows = [{"text": "fine", "tags": ["a"], "label": 1}, {"text": "bad", "label": "x", "n": None}]
    data = tmp_path / "in.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    predicted = predict(PredictionRequest(student, str(data)), Listener())
    written = rows_of(predicted.write(tmp_path / "out.jsonl"))
    assert [{k: row[k] for k in own} for row, own in zip(written, rows, strict=True)] == rows
    assert list(written[1])[:3] == ["text", "label", "n"]
    with pytest.raises(DataError, match=r"'label' holds values of several types.* write \.jsonl"):
        predicted.write(tmp_path / "out.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_what_a_format_cannot_hold_is_written_otherwise_or_refused(
    tmp_path: Path, student: Path
) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "fine", "cut": "\\ud83d"}\n')
    predicted = predict(PredictionRequest(student, str(tmp_path / "in.jsonl")), Listener())
    assert rows_of(predicted.write(tmp_path / "out.jsonl"))[0]["cut"] == "\ud83d"
    with pytest.raises(DataError, match=r"'cut' holds characters that are not UTF-8.* \.jsonl"):
        predicted.write(tmp_path / "out.parquet")
    image = pa.table({"text": ["fine"], "image": pa.array([b"\xff"], pa.binary())})
    parquet.write_table(image, tmp_path / "in.parquet")
    predicted = predict(PredictionRequest(student, str(tmp_path / "in.parquet")), Listener())
    with pytest.raises(DataError, match=r"a column holds bytes that are not UTF-8; write \.par"):
        predicted.write(tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_several_files_are_one_table(tmp_path: Path, student: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    parquet.write_table(pa.table({"text": TEXTS[:2]}), folder / "a.parquet")
    parquet.write_table(pa.table({"text": TEXTS[2:], "n": [1, 2, 3]}), folder / "b.parquet")
    table = predict(PredictionRequest(student, str(folder)), Listener()).table
    assert table.column("text").to_pylist() == TEXTS
    assert table.column("n").to_pylist() == [None, None, 1, 2, 3]
    assert table.num_rows == 5


def test_features_are_read_from_the_columns_of_the_training(tmp_path: Path) -> None:
    space = FeatureSpace(("a", "b"), (1.0, 2.0), (1.0, 0.5))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_classifier("mlp", space, ("out", "in"), layers=1, hidden=8, dropout=0.0)
    model.save_pretrained(tmp_path / "student")
    points = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
    table = pa.table({"b": points[:, 1], "a": points[:, 0]})
    parquet.write_table(table, tmp_path / "in.parquet")
    predicted = predict(
        PredictionRequest(tmp_path / "student", str(tmp_path / "in.parquet")), Listener()
    )
    with torch.no_grad():
        probs = model(torch.from_numpy(points)).logits.double().softmax(-1).numpy()
    np.testing.assert_allclose(predicted.added["probability.in"], probs[:, 1], atol=1e-7)
    without = parquet.write_table(pa.table({"a": [1.0]}), tmp_path / "less.parquet")
    assert without is None
    with pytest.raises(DataError, match="'b'"):
        predict(PredictionRequest(tmp_path / "student", str(tmp_path / "less.parquet")), Listener())


REFUSED = [
    ({"text": ["a"], "prediction": ["b"]}, {}, "has a column 'prediction' already"),
    ({"text": ["a"], "probability.yes": [1.0]}, {}, "has a column 'probability.yes' already"),
    ({"words": ["a"]}, {}, r"no column text or code, it has words: .*--text-column"),
    ({"text": ["a", None]}, {}, "--text-column 'text' is null in row 2"),
    ({"text": ["a"]}, {"text": "words"}, "none of the columns words: its columns are text"),
    ({"text": ["a"]}, {"pair": "text"}, "was trained on single texts: remove it"),
    ({"text": ["a"]}, {"prompt": "text"}, "--prompt-column text: .* reads text or features"),
]


@pytest.mark.parametrize(("columns", "named", "message"), REFUSED)
def test_refusals_name_the_column_and_the_option(
    tmp_path: Path, student: Path, columns: Any, named: Any, message: str
) -> None:
    parquet.write_table(pa.table(columns), tmp_path / "in.parquet")
    with pytest.raises(DistillError, match=message):
        predict(
            PredictionRequest(student, str(tmp_path / "in.parquet"), ColumnOptions(**named)),
            Listener(),
        )


def test_folders_that_hold_no_student(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no folder"):
        predict(PredictionRequest(tmp_path / "none", "x.csv"), Listener())
    with pytest.raises(ModelError, match="neither a run nor an exported student"):
        predict(PredictionRequest(tmp_path, "x.csv"), Listener())
    (tmp_path / "experiment.json").write_text("{}")
    with pytest.raises(RunFolderError, match="has no exported student: finish the run"):
        predict(PredictionRequest(tmp_path, "x.csv"), Listener())
    (tmp_path / "experiment.json").write_text('{"command": "sweep"}')
    (tmp_path / "trials" / "t1" / "student").mkdir(parents=True)
    (tmp_path / "trials" / "t1" / "student" / "config.json").write_text("{}")
    with pytest.raises(RunFolderError, match=r"is a sweep, .* such as .*trials/t1/student"):
        predict(PredictionRequest(tmp_path, "x.csv"), Listener())


def test_an_existing_file_is_not_replaced_unless_allowed(tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("kept")
    with pytest.raises(RunFolderError, match=r"already exists: .* --overwrite"):
        check_out(tmp_path / "out.csv", overwrite=False)
    check_out(tmp_path / "out.csv", overwrite=True)
    with pytest.raises(DataError, match=r"use one of \.parquet"):
        check_out(tmp_path / "out.xlsx", overwrite=True)


def test_prompts_are_continued_greedily(tmp_path: Path) -> None:
    model = save_decoder(tmp_path / "student")
    prompts = ["the good film", "a", "not very bad plot was the"]
    parquet.write_table(pa.table({"prompt": prompts}), tmp_path / "in.parquet")
    listener = Listener()
    request = PredictionRequest(
        tmp_path / "student", str(tmp_path / "in.parquet"), max_new_tokens=5, batch_size=2
    )
    predicted = predict(request, listener)
    tokenizer = load_tokenizer(tmp_path / "student")
    for prompt, text in zip(prompts, predicted.added["generated"], strict=True):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        for _ in range(5):  # by hand: the likeliest token, again and again
            with torch.no_grad():
                best = model(ids).logits[0, -1].argmax().view(1, 1)
            ids = torch.cat([ids, best], 1)
            if best == tokenizer.eos_token_id:
                break
        own = ids[0, len(tokenizer(prompt)["input_ids"]) :]
        assert text == tokenizer.decode(own, skip_special_tokens=True)
    assert listener.updates == [("generating", 2, 3), ("generating", 3, 3)]
    long = pa.table({"prompt": ["a", " ".join(["the"] * 32)]})
    parquet.write_table(long, tmp_path / "long.parquet")
    with pytest.raises(
        DataError, match=r"prompt of row 2 has 32 tokens, .* 32 positions for an answer"
    ):
        predict(PredictionRequest(tmp_path / "student", str(tmp_path / "long.parquet")), listener)


TEMPLATE = (
    "{% for m in messages %}{{ m.role }} {{ m.content }} <eos> {% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)


def test_chats_are_answered_at_their_end(tmp_path: Path) -> None:
    folder = tmp_path / "student"
    save_decoder(folder)
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    question = {"role": "user", "content": "the film"}
    answer = {"role": "assistant", "content": "good"}
    chats = [[question], [question, answer], [question, answer, question]]
    parquet.write_table(pa.table({"messages": chats}), tmp_path / "in.parquet")
    listener = Listener()
    request = PredictionRequest(folder, str(tmp_path / "in.parquet"), max_new_tokens=4)
    first, second, third = predict(request, listener).added["generated"]
    assert first == second
    assert listener.lines[-1].startswith("1 of 3 chats end with an answer, which is ignored")
    # The same tokens as a prompt in words.
    words = [
        "user the film <eos> assistant",
        "user the film <eos> assistant good <eos> user the film <eos> assistant",
    ]
    parquet.write_table(pa.table({"prompt": words}), tmp_path / "words.parquet")
    plain = PredictionRequest(folder, str(tmp_path / "words.parquet"), max_new_tokens=4)
    listener = Listener()
    assert predict(plain, listener).added["generated"] == [first, third]
    assert "without the tokenizer's chat template" in listener.lines[-1]


def test_prompts_of_a_student_of_chats_are_turns_of_a_chat(tmp_path: Path) -> None:
    run = tmp_path / "run"
    save_decoder(run / "student")
    tokenizer = load_tokenizer(run / "student")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(run / "student")
    (run / "experiment.json").write_text("{}")
    raw = {
        "task": "language_model",
        "data": {"path": "chats.jsonl", "columns": {"messages": "messages"}},
        "teachers": [{"name": "big", "path": "big"}],
        "output": str(run),
    }
    (run / "config.yaml").write_text(write_yaml(raw))
    parquet.write_table(pa.table({"ask": ["the film"]}), tmp_path / "in.parquet")
    with pytest.raises(DataError, match=r"no column messages, .* ask: name chats by --messages-co"):
        predict(PredictionRequest(run, str(tmp_path / "in.parquet")), Listener())
    named = ColumnOptions(prompt="ask")
    found = predict(
        PredictionRequest(run, str(tmp_path / "in.parquet"), named, max_new_tokens=4), Listener()
    )
    chats = [[{"role": "user", "content": "the film"}]]
    parquet.write_table(pa.table({"messages": chats}), tmp_path / "chats.parquet")
    same = predict(
        PredictionRequest(run, str(tmp_path / "chats.parquet"), max_new_tokens=4), Listener()
    )
    assert found.added == same.added


def test_prompts_are_shown_as_chats_where_the_run_did_so(tmp_path: Path) -> None:
    folder = tmp_path / "student"
    save_decoder(folder)
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    columns = {"prompt": "question", "completion": "answer"}
    data = {"path": "in.parquet", "columns": columns, "prompt_as_chat": True}
    run = make_run(tmp_path / "run", folder, data, task="language_model")
    parquet.write_table(pa.table({"question": ["the film", "good"]}), tmp_path / "in.parquet")
    found = predict(
        PredictionRequest(run, str(tmp_path / "in.parquet"), max_new_tokens=4), Listener()
    )
    words = [f"user {text} <eos> assistant" for text in ("the film", "good")]
    parquet.write_table(pa.table({"prompt": words}), tmp_path / "words.parquet")
    plain = PredictionRequest(folder, str(tmp_path / "words.parquet"), max_new_tokens=4)
    assert found.added == predict(plain, Listener()).added


def test_it_works_without_ray() -> None:
    absent = "; ".join(f"sys.modules[{name!r}] = None" for name in ("ray", "deepspeed", "mlflow"))
    code = f"import sys; {absent}; import distill.export.prediction, distill.export.onnx"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_command_writes_and_refuses(tmp_path: Path, student: Path) -> None:
    parquet.write_table(pa.table({"text": TEXTS}), tmp_path / "in.parquet")
    out = tmp_path / "out.jsonl"
    args = ["predict", str(student), "--data", str(tmp_path / "in.parquet"), "--out", str(out)]
    done = CliRunner().invoke(app, [*args, "--json"])
    assert done.exit_code == 0, done.output
    text = json.loads(done.stdout.splitlines()[-1])
    assert text["rows"] == len(rows_of(out)) == 5 and text["columns"][0] == "prediction"
    again = CliRunner().invoke(app, args)
    assert again.exit_code == 2 and "--overwrite" in again.stderr
    assert CliRunner().invoke(app, [*args, "--overwrite"]).exit_code == 0
    wrong = CliRunner().invoke(app, [*args, "--overwrite", "--device", "tpu"])
    assert wrong.exit_code == 2 and "--device tpu: use one of auto, cpu, cuda" in wrong.stderr
