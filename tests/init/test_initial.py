"""``distill init`` writes a configuration that ``distill check`` accepts, for data of each kind."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from distill import __version__
from distill.cli import app
from distill.config import Experiment, load
from distill.data.blocks import Blocks
from distill.driver.checks.check import check
from distill.errors import ConfigError, DataError, ModelError
from distill.init import Start, initial, write
from distill.init.models import read_models
from distill.models.tokenizer import load_tokenizer
from distill.tasks.plan import Plan
from tests.toys import BAD, GOOD, WORDS, write_data, write_encoder, write_named
from tests.toys_adapters import write_adapter
from tests.toys_language import llama, write_llama, write_texts

CHATML = (
    "{% for m in messages %}{{ m['role'] + ' ' + m['content'] + '<eos>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant ' }}{% endif %}"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("init")
    write_data(folder / "data.parquet")
    write_encoder(folder / "films", num_labels=2)
    write_encoder(folder / "meals", num_labels=2, seed=1)
    write_encoder(folder / "encoder")
    write_texts(folder / "prompts.parquet")
    write_llama(folder / "llama")
    write_adapter(folder / "llama-films", folder / "llama", 0)
    write_llama(folder / "chatty")
    tokenizer = load_tokenizer(folder / "chatty")
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder / "chatty")
    return folder


def written(start: Start, folder: Path) -> Experiment:
    """What ``distill check`` reads, with room for the teachers and a cache of the test's."""
    path = write(start, folder / "mine.yaml")
    room = ["cluster.num_cpus=64", f"data.cache_dir={folder}/cache", f"output={folder}/run"]
    return load(path, room)


def checked(start: Start, folder: Path) -> Plan:
    assert start.open_points == []
    return check(written(start, folder))


def rows_of(root: Path) -> list[dict[str, Any]]:
    return pq.read_table(root / "data.parquet").to_pylist()


def write_csv(rows: list[dict[str, Any]], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


# ---- classifiers -----------------------------------------------------------------------------


def test_classifiers_and_a_table(root: Path, tmp_path: Path) -> None:
    models = [str(root / "films"), str(root / "meals")]
    plan = checked(initial(str(root / "data.parquet"), models), tmp_path)
    experiment = plan.experiment
    assert experiment.task == "classification"
    assert [teacher.name for teacher in experiment.teachers] == ["films", "meals"]
    assert experiment.data.columns.model_dump(exclude_none=True) == {
        **{"text": "text", "label": "label", "domain": "domain", "split": "split"},
    }
    assert experiment.data.max_length == 16, "the longest has 10 tokens"
    assert experiment.student.size_mb is not None
    assert experiment.student.size_mb < 0.5 * 0.08, "of the 0.08 MB of a teacher"
    assert experiment.tracking.experiment == "mine", "the file's name"
    assert experiment.data.unlabelled == "error"


def test_texts_of_the_data_stay_in_their_comments(root: Path, tmp_path: Path) -> None:
    """Names with an end of line, of which the rest would be keys of the configuration."""
    rows = [
        row
        | {"label": f"{row['label']}\n  cache_dir: /elsewhere", "domain": f"{row['domain']}\n#"}
        | {"note\n  on_empty_text: drop": f"{i}"}
        for i, row in enumerate(rows_of(root))
    ]
    start = initial(str(write_csv(rows, tmp_path / "lines.csv")), [str(root / "encoder")])
    data = load(write(start, tmp_path / "mine.yaml"), []).data
    assert (data.cache_dir, data.on_empty_text) == (None, "error")
    assert "# labels: no   cache_dir: /elsewhere" in start.text


def test_columns_are_found_by_their_usual_names(root: Path, tmp_path: Path) -> None:
    """And a third of the rows has no label, and there is no column of splits."""
    rows = [
        {
            "id": i,
            "title": f"row {i}",
            "Review": row["text"],
            "sentiment": "" if i % 3 == 0 else row["label"],
            "category": row["domain"],
        }
        for i, row in enumerate(rows_of(root))
    ]
    path = write_csv(rows, tmp_path / "shop reviews.csv")
    start = initial(str(path), [str(root / "films")])
    plan = checked(start, tmp_path)
    data = plan.experiment.data
    assert (data.columns.text, data.columns.label) == ("Review", "sentiment")
    assert (data.columns.domain, data.columns.split) == ("category", None)
    assert data.unlabelled == "transfer" and len(plan.corpus.rows("transfer")) > 100
    assert "# 160 rows have no label" in start.text
    assert "# text could also be title" in start.text
    assert "# not read: id, title" in start.text
    assert start.name == "shop-reviews"


def test_splits_are_found_in_other_words(root: Path, tmp_path: Path) -> None:
    words = {"transfer": "unlabeled", "validation": "dev"}
    rows = [row | {"split": words.get(row["split"], row["split"])} for row in rows_of(root)]
    path = write_csv(rows, tmp_path / "data.csv")
    plan = checked(initial(str(path), [str(root / "films")]), tmp_path)
    assert plan.experiment.data.splits.model_dump() == {
        **{"train": "train", "transfer": "unlabeled", "validation": "dev", "test": "test"},
    }
    assert len(plan.corpus.rows("validation")) == 78


def test_a_column_without_a_validation_split_is_not_used(root: Path, tmp_path: Path) -> None:
    splits = ["test", "train", "train", "train"] * 200
    rows = [row | {"split": split} for row, split in zip(rows_of(root), splits, strict=False)]
    start = initial(str(write_csv(rows, tmp_path / "data.csv")), [str(root / "films")])
    assert "train, validation and test are needed" in start.text
    assert checked(start, tmp_path).experiment.data.columns.split is None


def test_splits_are_found_in_the_names_of_files(root: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        rows = [row for row in rows_of(root) if row["split"] == split]
        rows = [{"text": row["text"], "label": row["label"]} for row in rows]
        write_csv(rows, tmp_path / "data" / f"{split}.csv")
    start = initial(str(tmp_path / "data"), [str(root / "films")])
    plan = checked(start, tmp_path)
    assert "test.csv: test, train.csv: train" in start.text
    assert len(plan.corpus.rows("test")) == 78 and len(plan.corpus.rows("validation")) > 0


def test_labels_that_a_model_numbers_are_found_by_its_answers(root: Path, tmp_path: Path) -> None:
    """A teacher whose class 0 is yes: its own answers say so."""
    teacher = write_trained(root, tmp_path / "trained")
    start = initial(str(root / "data.parquet"), [str(teacher)])
    (found,) = checked(start, tmp_path).experiment.teachers
    assert found.labels == {"LABEL_0": "yes", "LABEL_1": "no"}
    assert "mapped by the model's own predictions" in start.text


def test_labels_that_nothing_tells_are_left_open(root: Path, tmp_path: Path) -> None:
    """An untrained model agrees with no map."""
    write_named(root / "meals", tmp_path / "unknown", None)
    start = initial(str(root / "data.parquet"), [str(tmp_path / "unknown")])
    assert (start.open_points, start.guesses) == ([], ["teachers.unknown.labels"])
    assert "CHECK     teachers.unknown.labels: a guess" in start.findings
    assert "# CHECK labels" in start.text
    (found,) = written(start, tmp_path).teachers
    assert found.labels == {"LABEL_0": "no", "LABEL_1": "yes"}


def test_whole_numbers_need_no_map(root: Path, tmp_path: Path) -> None:
    rows = [row | {"label": int(row["label"] == "yes")} for row in rows_of(root)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data.parquet")
    write_named(root / "meals", tmp_path / "unknown", None)
    start = initial(str(tmp_path / "data.parquet"), [str(tmp_path / "unknown")])
    assert checked(start, tmp_path).experiment.teachers[0].labels is None


def test_labels_of_pandas_with_missing_numbers(root: Path, tmp_path: Path) -> None:
    """1.0, 0.0 and NaN, as pandas writes integers of which some are missing."""
    rows = rows_of(root)
    labels = [None if i % 4 == 0 else float(row["label"] == "yes") for i, row in enumerate(rows)]
    table = pa.table(
        {
            "text": [row["text"] for row in rows],
            "label": pa.array([np.nan if x is None else x for x in labels], pa.float64()),
        }
    )
    pq.write_table(table, tmp_path / "data.parquet")
    write_named(root / "meals", tmp_path / "unknown", None)
    start = initial(str(tmp_path / "data.parquet"), [str(tmp_path / "unknown")])
    plan = checked(start, tmp_path)
    assert plan.experiment.data.unlabelled == "transfer"
    assert plan.corpus.label_names == ("0", "1")


def test_pairs_of_texts(root: Path, tmp_path: Path) -> None:
    rows = [
        {"premise": row["text"], "hypothesis": row["text"], "label": row["label"]}
        for row in rows_of(root)
    ]
    path = write_csv(rows, tmp_path / "data.csv")
    columns = checked(initial(str(path), [str(root / "films")]), tmp_path).experiment.data.columns
    assert (columns.text, columns.text_pair) == ("premise", "hypothesis")


def test_a_column_of_the_models_names_is_the_domain(root: Path, tmp_path: Path) -> None:
    rows = [
        {"text": row["text"], "label": row["label"], "project": row["domain"]}
        for row in rows_of(root)
    ]
    path = str(write_csv(rows, tmp_path / "data.csv"))
    named = initial(path, [str(root / "films"), str(root / "meals")])
    assert checked(named, tmp_path).experiment.data.columns.domain == "project"
    assert "not read: project" in initial(path).text


# ---- experts, no models, pickles -------------------------------------------------------------


def test_an_encoder_becomes_the_base_of_experts(root: Path, tmp_path: Path) -> None:
    plan = checked(initial(str(root / "data.parquet"), [str(root / "encoder")]), tmp_path)
    assert plan.experiment.experts is not None
    assert plan.experiment.experts.base == str(root / "encoder")
    assert plan.teacher_names == ("films", "meals", "tools")


def test_an_encoder_without_domains_clusters_the_rows(root: Path, tmp_path: Path) -> None:
    rows = [{"text": row["text"], "label": row["label"]} for row in rows_of(root)]
    path = write_csv(rows, tmp_path / "data.csv")
    experts = checked(initial(str(path), [str(root / "encoder")]), tmp_path).experiment.experts
    assert experts is not None and experts.partition.type == "kmeans"


def test_without_models_it_says_what_to_fill_in(root: Path, tmp_path: Path) -> None:
    start = initial(str(root / "data.parquet"))
    assert start.open_points == ["experts.base"] and "FILL IN" in start.text
    experiment = written(start, tmp_path)
    with pytest.raises(ModelError, match="no model folder FILL/IN"):
        check(experiment)
    assert experiment.experts is not None and experiment.experts.partition.type == "column"


def test_features_and_pickles(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3))
    rows = [
        {"id": i, "width": a, "height": b, "mass": c, "class": int(a > 0)}
        for i, (a, b, c) in enumerate(x.tolist())
    ]
    path = write_csv(rows, tmp_path / "table.csv")
    model = LogisticRegression().fit(x, [row["class"] for row in rows])
    (tmp_path / "linear.pkl").write_bytes(pickle.dumps(model))
    start = initial(str(path), [str(tmp_path / "linear.pkl")])
    experiment = checked(start, tmp_path).experiment
    assert experiment.data.columns.features == ("width", "height", "mass")
    assert experiment.data.columns.label == "class"
    (teacher,) = experiment.teachers
    assert (teacher.name, teacher.allow_pickle) == ("linear", True)
    assert "A pickle can run code when it is loaded" in start.text


def test_pickles_over_text_leave_the_tokenizer_open(root: Path, tmp_path: Path) -> None:
    (tmp_path / "linear.joblib").write_bytes(b"never opened")
    start = initial(str(root / "data.parquet"), [str(tmp_path / "linear.joblib")])
    assert start.open_points == ["student.tokenizer"]
    assert written(start, tmp_path).teachers[0].allow_pickle


def test_a_column_of_lists_is_features(tmp_path: Path) -> None:
    rows = [{"features": [float(i % 7), 1.0], "label": i % 2} for i in range(200)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = LogisticRegression().fit([r["features"] for r in rows], [r["label"] for r in rows])
    (tmp_path / "linear.pkl").write_bytes(pickle.dumps(model))
    start = initial(str(tmp_path / "rows.jsonl"), [str(tmp_path / "linear.pkl")])
    assert checked(start, tmp_path).experiment.data.columns.features == "features"


# ---- language models -------------------------------------------------------------------------


def test_a_language_model_and_prompts(root: Path, tmp_path: Path) -> None:
    plan = checked(initial(str(root / "prompts.parquet"), [str(root / "llama")]), tmp_path)
    experiment = plan.experiment
    assert experiment.task == "language_model" and experiment.data.columns.prompt == "prompt"
    assert experiment.student.init_from is not None and experiment.student.init_from.layers == 1
    assert not experiment.data.prompt_as_chat
    assert experiment.teachers[0].wire.type == "dense", "as small as a hidden state"


def test_a_large_vocabulary_is_sent_as_hidden_states(root: Path, tmp_path: Path) -> None:
    wide = shutil.copytree(root / "llama", tmp_path / "wide")
    llama(0, 500).save_pretrained(wide)
    plan = checked(initial(str(root / "prompts.parquet"), [str(wide)]), tmp_path)
    assert plan.experiment.teachers[0].wire.type == "hidden"


def test_prompts_and_a_chat_template(root: Path, tmp_path: Path) -> None:
    plan = checked(initial(str(root / "prompts.parquet"), [str(root / "chatty")]), tmp_path)
    assert plan.experiment.data.prompt_as_chat
    assert isinstance(plan.rows, Blocks) and plan.rows.kind == "messages"


def test_without_the_key_check_says_that_the_template_is_not_used(
    root: Path, tmp_path: Path
) -> None:
    start = initial(str(root / "prompts.parquet"), [str(root / "chatty")])
    path = write(start, tmp_path / "mine.yaml")
    changes = [f"data.cache_dir={tmp_path}/cache", f"output={tmp_path}/run", "cluster.num_cpus=64"]

    def shown(*more: str) -> str:
        plan = check(load(path, [*changes, *more]))
        return " ".join(line.what for line in plan.lines if line.part == "chat template")

    assert "of chatty is not used" in shown("data.prompt_as_chat=false")
    assert "data.prompt_as_chat=true" in shown("data.prompt_as_chat=false")
    assert shown() == ""


def test_chats_of_both_conventions(root: Path, tmp_path: Path) -> None:
    for name, keys in {"messages": ("role", "content"), "conversations": ("from", "value")}.items():
        chats = [
            [
                {keys[0]: "user", keys[1]: f"the {word} {i}"},
                {keys[0]: "assistant", keys[1]: WORDS[i % len(WORDS)]},
            ]
            for i, word in enumerate(WORDS * 8)
        ]
        lines = [json.dumps({name: chat, "source": "ab"[i % 2]}) for i, chat in enumerate(chats)]
        folder = tmp_path / name
        folder.mkdir()
        (folder / "chats.jsonl").write_text("\n".join(lines))
        start = initial(str(folder / "chats.jsonl"), [str(root / "chatty")])
        columns = checked(start, folder).experiment.data.columns
        assert (columns.messages, columns.domain) == (name, "source")


def test_calls_and_tools_count_for_the_length(root: Path, tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "the " * 40}}}
    chat = [
        {"role": "user", "content": "the film"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    short = [chat[0], {"role": "assistant", "content": "good"}]
    # Every second row, of more rows than are sampled.
    chats = [{"messages": chat if i % 2 else short, "n": i} for i in range(600)]
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, chats)))
    start = initial(str(tmp_path / "chats.jsonl"), [str(chatty_with_calls(root, tmp_path))])
    assert written(start, tmp_path).data.max_length >= 48


def chatty_with_calls(root: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(root / "chatty", tmp_path / "chatty")
    template = (
        "{% for m in messages %}{{ m.role }} {{ m.content }}"
        "{% for c in m.tool_calls or [] %} {{ c.function | tojson }}{% endfor %}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant {% endif %}"
    )
    (folder / "chat_template.jinja").write_text(template)
    return folder


def test_an_adapter_is_served_on_its_base(root: Path, tmp_path: Path) -> None:
    models = [str(root / "llama-films")]
    plan = checked(initial(str(root / "prompts.parquet"), models), tmp_path)
    (teacher,) = plan.experiment.teachers
    assert (teacher.path, teacher.adapter) == (str(root / "llama"), models[0])
    two = initial(str(root / "prompts.parquet"), [str(root / "llama"), *models]).text
    assert "also: weights, oracle, uncertainty, learned" in two
    assert teacher.name == "llama-films"


def test_without_models_messages_mean_a_language_model(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (tmp_path / "chats.jsonl").write_text(json.dumps({"messages": chat}) + "\n")
    start = initial(str(tmp_path / "chats.jsonl"))
    assert "task: language_model" in start.text
    assert start.open_points == ["teachers"]
    assert written(start, tmp_path).teachers[0].path == "FILL/IN/path/to/model"


# ---- what is refused, names, the command -----------------------------------------------------


def test_what_cannot_be_used_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give models for one task"):
        initial(str(root / "data.parquet"), [str(root / "films"), str(root / "llama")])
    with pytest.raises(ConfigError, match="give only this one"):
        initial(str(root / "data.parquet"), [str(root / "films"), str(root / "encoder")])
    with pytest.raises(ModelError, match="hf download distilbert/distilbert-base-uncased"):
        initial(str(root / "data.parquet"), ["distilbert/distilbert-base-uncased"])
    with pytest.raises(DataError, match="hf download imdb --repo-type dataset"):
        initial("imdb")
    with pytest.raises(ModelError, match="there is no file"):
        initial(str(root / "data.parquet"), ["absent.pkl"])
    (tmp_path / "odd.jsonl").write_text('{"a": {"b": 1}}\n')
    with pytest.raises(DataError, match="no column with texts, chats or numbers"):
        initial(str(tmp_path / "odd.jsonl"))


def test_vague_folders_are_named_by_the_folder_above(root: Path, tmp_path: Path) -> None:
    for name in ("books", "music"):
        shutil.copytree(root / "films", tmp_path / name / "checkpoint-50")
    shutil.copytree(root / "films", tmp_path / "other" / "books")
    paths = ["books/checkpoint-50", "music/checkpoint-50", "other/books"]
    names = [model.name for model in read_models([str(tmp_path / path) for path in paths])]
    assert names == ["books-1", "music", "books-2"]


def test_the_command_writes_and_never_overwrites(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = CliRunner()
    arguments = ["init", str(root / "data.parquet"), str(root / "films")]
    found = run.invoke(app, arguments)
    assert found.exit_code == 0, found.output
    assert "next      distill check data.yaml" in found.output
    assert "next      distill train data.yaml" in found.output
    before = Path("data.yaml").read_text()
    again = run.invoke(app, arguments)
    assert again.exit_code == 2 and "--out" in again.output
    assert Path("data.yaml").read_text() == before
    other = run.invoke(app, [*arguments, "--out", "sub/mine.yaml"])
    assert other.exit_code == 0 and Path("sub/mine.yaml").exists()
    assert "distill check sub/mine.yaml" in Path("sub/mine.yaml").read_text()


def test_what_is_open_comes_first_among_the_next_commands(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(app, ["init", str(root / "data.parquet"), "--json"])
    assert "next      fill in experts.base in data.yaml" in found.output
    assert json.loads(found.output.splitlines()[-1])["open"] == ["experts.base"]


def test_version_and_completion() -> None:
    run = CliRunner()
    assert run.invoke(app, ["--version"]).output == f"distill {__version__}\n"
    shown = run.invoke(app, ["--help"], env={"COLUMNS": "80"}).output
    assert "--install-completion" in shown and "--show-completion" in shown
    assert max(map(len, shown.splitlines())) <= 80


# ---- a teacher that knows the task -----------------------------------------------------------


def write_trained(root: Path, folder: Path) -> Path:
    """A classifier LABEL_0, LABEL_1 whose output 0 is "yes": by the telling words' embeddings."""
    import torch
    from safetensors.torch import load_file, save_file

    write_named(root / "films", folder, None)
    weights = load_file(folder / "model.safetensors")
    tokenizer = load_tokenizer(folder)
    for name, tensor in weights.items():
        if "encoder.layer" in name and name.endswith(("output.dense.weight", "output.dense.bias")):
            tensor.zero_()  # every layer passes its input on
    embeddings = weights["bert.embeddings.word_embeddings.weight"]
    embeddings *= 0.01
    weights["bert.embeddings.position_embeddings.weight"] *= 0
    weights["bert.embeddings.token_type_embeddings.weight"] *= 0
    for words, sign in ((GOOD, 1.0), (BAD, -1.0)):
        for word in words:
            embeddings[tokenizer.convert_tokens_to_ids(word), 0] = sign
    # The first layer's attention averages all tokens: equal scores, values as they are.
    layer = "bert.encoder.layer.0.attention"
    for part in ("query", "key"):
        weights[f"{layer}.self.{part}.weight"].zero_()
    weights[f"{layer}.self.value.weight"].copy_(torch.eye(32))
    weights[f"{layer}.self.value.bias"].zero_()
    weights[f"{layer}.output.dense.weight"].copy_(10 * torch.eye(32))
    weights["bert.pooler.dense.weight"].copy_(torch.eye(32))
    weights["bert.pooler.dense.bias"].zero_()
    weights["classifier.weight"].zero_()
    weights["classifier.bias"].zero_()
    weights["classifier.weight"][0, 0], weights["classifier.weight"][1, 0] = 10.0, -10.0
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
