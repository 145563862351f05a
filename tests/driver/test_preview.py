"""What ``distill preview`` shows: rows as the student reads them, and what is trained on."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from distill.cli import app
from distill.config import parse
from distill.data.corpus import build_corpus
from distill.data.pieces import Pieces
from distill.driver.preview import Preview, PreviewRow, preview, render
from distill.errors import ConfigError, DataError
from distill.models.tokenizer import load_fast_tokenizer
from distill.tasks.jobs import write_tokenizer
from tests.toys import toy_experiment
from tests.toys_language import language_experiment

CHATML = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + "
    "'<eos>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
CHAT = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hallo 🐫"},
    {"role": "user", "content": "more"},
    {"role": "assistant", "content": "no"},
]


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token a byte, with a chat template."""
    folder = tmp_path_factory.mktemp("bytes")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<pad>", "<eos>", "<|user|>", "<|assistant|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        [], trainers.BpeTrainer(special_tokens=special, initial_alphabet=alphabet)
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>")
    fast.chat_template = CHATML
    fast.save_pretrained(folder)
    return folder


def experiment_of(
    tmp_path: Path,
    tokenizer: Path,
    rows: list[dict[str, Any]],
    columns: dict[str, str],
    **data: Any,
) -> Any:
    """A student of language; its teacher's folder does not exist."""
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    raw = {
        "task": "language_model",
        "data": {
            "path": str(tmp_path / "rows.parquet"),
            "columns": {**columns, "split": "split"},
            "cache_dir": str(tmp_path / "cache"),
            **data,
        },
        "output": str(tmp_path / "run"),
        "teachers": [{"name": "gone", "path": str(tmp_path / "absent")}],
        "student": {"tokenizer": str(tokenizer), "layers": 1, "hidden": 32, "heads": 2},
    }
    return parse(raw)


def spread(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Into train, with one row each for the splits that must be there."""
    return [
        *({**row, "split": "train"} for row in rows),
        *({**rows[-1], "split": split} for split in ("validation", "test")),
    ]


def learned(one: PreviewRow) -> str:
    return "".join(t for t, is_trained in zip(one.tokens, one.learned, strict=True) if is_trained)


def test_of_a_chat_the_answers_are_trained_on_and_every_token_is_a_piece(
    tmp_path: Path, byte_level: Path
) -> None:
    given = experiment_of(tmp_path, byte_level, spread([{"chat": CHAT}]), {"messages": "chat"})
    found = preview(given)
    (one,) = found.shown
    assert found.num_masked == 0
    assert one.text == (
        "<|user|>\nHi<eos>\n<|assistant|>\nHallo 🐫<eos>\n"
        "<|user|>\nmore<eos>\n<|assistant|>\nno<eos>\n"
    )
    camel = ["<0xF0>", "<0x9F>", "<0x90>", "<0xAB>"]
    start = one.tokens.index("<|assistant|>") + 2
    assert one.tokens[start : start + 11] == [*"Hallo ", *camel, "<eos>"]
    assert learned(one) == "Hallo <0xF0><0x9F><0x90><0xAB><eos>no<eos>"
    assert (one.split, one.row, one.label, one.domain) == ("train", 1, None, None)


def test_a_key_that_only_a_training_reads_may_be_there(tmp_path: Path, byte_level: Path) -> None:
    given = experiment_of(tmp_path, byte_level, spread([{"chat": CHAT}]), {"messages": "chat"})
    assert preview(given.model_copy(update={"warm_start": True})) == preview(given)


def test_of_a_completion_it_is_trained_on_and_truncation_is_told(
    tmp_path: Path, byte_level: Path
) -> None:
    rows = [{"p": "ab", "c": "cd"}, {"p": "ab", "c": "c" * 20}, {"p": "long" * 9, "c": "d"}]
    rows = spread([*rows, {"p": "a", "c": "b"}])
    columns = {"prompt": "p", "completion": "c"}
    given = experiment_of(tmp_path, byte_level, rows, columns, max_length=12)
    found = preview(given, num_rows=3)
    assert [one.text for one in found.shown] == ["abcd<eos>", "ab" + "c" * 10, "ab<eos>"]
    assert [learned(one) for one in found.shown] == ["cd<eos>", "c" * 10, "b<eos>"]
    assert [one.row for one in found.shown] == [1, 2, 4]
    assert [one.notes for one in found.shown] == [
        (),
        ("truncated to 12 tokens (data.cut head)",),
        (),
    ]
    assert found.num_masked == 1  # a prompt that leaves no room


def test_of_a_long_text_each_sequence_is_shown(tmp_path: Path, byte_level: Path) -> None:
    rows = spread([{"text": "abcdefghij", "d": "电影"}])
    given = experiment_of(tmp_path, byte_level, rows, {"text": "text", "domain": "d"}, max_length=8)
    found = preview(given).shown
    assert [one.text for one in found] == ["abcdefgh", "hij<eos>"]
    assert [learned(one) for one in found] == ["bcdefgh", "ij<eos>"]
    assert [one.notes for one in found] == [("sequence 1 of 2",), ("sequence 2 of 2",)]
    assert {one.domain for one in found} == {"电影"}


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("classifiers")
    (root / "e.yaml").write_text(yaml.safe_dump(toy_experiment(root)))
    for weights in (root / "encoder").glob("*.safetensors"):
        weights.unlink()  # a preview opens none
    return root


def test_of_a_classifier_label_and_domain_are_shown_and_no_token_is_trained_on(
    classifiers: Path,
) -> None:
    given = parse(toy_experiment(classifiers) | {"seed": 0})
    rows = pq.read_table(classifiers / "data.parquet").to_pylist()
    for split in ("train", "transfer"):
        wanted = [row for row in rows if row["split"] == split][:2]
        for one, row in zip(preview(given, split, 2).shown, wanted, strict=True):
            assert one.tokens == ["[CLS]", *row["text"].split(), "[SEP]"]
            assert one.text == row["text"] and one.domain == row["domain"]
            assert one.label == (row["label"] if split == "train" else None)
            assert one.learned == [False] * len(one.tokens)


def test_a_retrained_tokenizer_is_that_of_the_run(classifiers: Path, tmp_path: Path) -> None:
    raw = toy_experiment(classifiers)
    corpus = build_corpus(parse(raw).data)
    raw["student"] = {"layers": 1, "hidden": 32, "heads": 2, "vocab_size": 64}
    raw["data"]["max_length"] = 64
    given = parse(raw)
    folder = write_tokenizer(given.student, str(classifiers / "encoder"), corpus, tmp_path / "own")
    ids = load_fast_tokenizer(folder)(corpus.texts_of([0])[0][0])["input_ids"]
    found = preview(given).shown[0].tokens
    assert found == load_fast_tokenizer(folder).convert_ids_to_tokens(ids)
    assert found != preview(parse(toy_experiment(classifiers))).shown[0].tokens


def test_of_features_the_numbers_are_shown(tmp_path: Path) -> None:
    rows = [{"a": i + 0.5, "b": -1.0, "label": "xy"[i % 2]} for i in range(60)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    raw = {
        "data": {
            "path": str(tmp_path / "rows.parquet"),
            "columns": {"features": ["a", "b"]},
            "cache_dir": str(tmp_path / "cache"),
        },
        "output": "o",
        "teachers": [{"name": "t", "path": "absent.pkl", "allow_pickle": True}],
    }
    (one,) = preview(parse(raw), num_rows=1).shown
    value = float(one.tokens[0])
    assert one.text == f"a={one.tokens[0]}, b=-1" and one.tokens[1] == "-1"
    assert one.label == "xy"[int(value) % 2] and one.learned == [False, False]


def test_a_split_that_is_not_there(tmp_path: Path, byte_level: Path) -> None:
    given = experiment_of(tmp_path, byte_level, spread([{"text": "abc"}]), {"text": "text"})
    with pytest.raises(DataError, match=r"--split transfer: the data has no such rows; .*train 1,"):
        preview(given, "transfer")
    with pytest.raises(ConfigError, match=r"--split dev is not a split: use train, "):
        preview(given, "dev")
    with pytest.raises(ConfigError, match=r"--rows must be at least 1, got 0"):
        preview(given, num_rows=0)


# ---- pieces ------------------------------------------------------------------------------------


def test_pieces_of_bytes_join_to_the_text(byte_level: Path) -> None:
    tokenizer = load_fast_tokenizer(byte_level)
    pieces = Pieces(tokenizer)
    every = "".join(map(chr, range(128)))
    assert "".join(pieces.of(tokenizer(every)["input_ids"])) == every
    assert pieces.of(tokenizer("é<eos>")["input_ids"]) == ["<0xC3>", "<0xA9>", "<eos>"]


def test_pieces_of_a_sentencepiece_tokenizer_keep_their_blanks() -> None:
    backend = Tokenizer(models.BPE(vocab={"<0xE7>": 0, "▁a": 1, "b": 2}, merges=[]))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    pieces = Pieces(PreTrainedTokenizerFast(tokenizer_object=backend))
    assert pieces.of([1, 2, 0]) == [" a", "b", "<0xE7>"]
    backend.decoder = decoders.Metaspace()
    assert Pieces(PreTrainedTokenizerFast(tokenizer_object=backend)).of([1, 2]) == [" a", "b"]


# ---- on the terminal -----------------------------------------------------------------------------

ONE = PreviewRow(
    "train",
    1,
    "[b]Q\nA\x1b[31m end",
    ["[b]", "Q", "\n", "A", "\x1b[31m", " end"],
    [False, False, False, True, True, True],
    None,
    "a [/b]",
)


def printed(found: Preview, **options: Any) -> str:
    stream = io.StringIO()
    settings: dict[str, Any] = {"width": 80, "markup": False, "emoji": False, **options}
    render(found, Console(file=stream, **settings))
    return stream.getvalue()


def test_without_colour_brackets_mark_what_is_trained_on() -> None:
    no_colour: dict[str, Any] = {"force_terminal": True, "no_color": True, "color_system": None}
    for options in ({}, no_colour):
        text = printed(Preview([ONE], 2), **options)
        assert "train row 1 · domain a [/b] · 6 tokens, 3 trained on\n" in text
        assert "[b]Q⏎\n[[A\\x1b[31m end]]\n" in text
        assert "2 rows between them have no target tokens" in text
        assert "\x1b" not in text


def test_with_colour_it_is_bold_and_underlined() -> None:
    text = printed(Preview([ONE]), force_terminal=True, color_system="standard")
    assert "\x1b[1;4;32mA\\x1b[31m end\x1b[0m" in text
    assert "[[" not in text


def test_it_fits_eighty_columns() -> None:
    words = [f" word{i}" for i in range(90)] + ["x" * 200, "影" * 90]
    long = PreviewRow("train", 1, "".join(words), words, [False] * 92, "l" * 90, "电" * 60)
    for line in printed(Preview([long])).splitlines():
        assert sum(1 + (ord(c) > 0x2E80) for c in line) <= 80


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["preview", *arguments])


def test_json_is_all_that_is_printed(classifiers: Path) -> None:
    done = run(str(classifiers / "e.yaml"), "data.max_length=6", "--rows", "2", "--json")
    assert done.exit_code == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [list(row) for row in rows] == [
        ["split", "text", "tokens", "learned", "label", "domain"]
    ] * 2
    assert all(len(row["tokens"]) == len(row["learned"]) <= 6 for row in rows)
    refused = run(str(classifiers / "e.yaml"), "--split", "dev", "--json")
    assert refused.exit_code == 2 and json.loads(refused.stdout)["kind"] == "ConfigError"


def test_people_read_it_too(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(language_experiment(tmp_path)))
    shutil.rmtree(tmp_path / "meals")  # a teacher
    done = run(str(tmp_path / "e.yaml"), "--rows", "1", "--split", "validation")
    assert done.exit_code == 0, done.stderr
    first = next(
        row["text"]
        for row in pq.read_table(tmp_path / "texts.parquet").to_pylist()
        if row["split"] == "validation"
    )
    asked, rest = first.split(" ", 1)
    assert f"{asked} [[{rest} <eos>]]" in done.stdout


def test_a_check_tells_machines_rows_and_labels(classifiers: Path) -> None:
    from distill.driver.checks.check import about

    text = about(build_corpus(parse(toy_experiment(classifiers)).data))
    splits = [row["split"] for row in pq.read_table(classifiers / "data.parquet").to_pylist()]
    assert text["rows"] == {s: splits.count(s) for s in ("train", "transfer", "validation", "test")}
    assert text["labels"] == ["no", "yes"]
    assert json.loads(json.dumps(text)) == text
