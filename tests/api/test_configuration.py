"""Configurations from Python: overrides, and data and teachers that are objects."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from sklearn.linear_model import LogisticRegression

from distill.api import experiment_of
from distill.api.tables import path_of
from distill.config import parse
from distill.config.yaml_text import write_yaml
from distill.data.corpus import build_corpus
from distill.driver.checks.check import check
from distill.errors import ConfigError, DataError, ModelError
from distill.models.features import FeatureSpace, build_classifier
from distill.models.load import load_classifier, load_tokenizer
from distill.run_folder import identity
from distill.teachers.probability import load_pickled
from tests.toys import write_encoder
from tests.toys_teachers import backend_of

ROWS = [
    {"text": f"the film number {i} was good", "label": "yes" if i % 2 else "no"} for i in range(60)
]


def settings(tmp_path: Path, **data: Any) -> dict[str, Any]:
    return {
        "data": {"path": "none", "cache_dir": str(tmp_path / "cache")} | data,
        "output": str(tmp_path / "run"),
        "tracking": {"uri": f"sqlite:///{tmp_path}/mlflow.db"},
    }


# ---- overrides -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "dict", "experiment"])
def test_overrides_of_either_form_change_any_configuration(tmp_path: Path, kind: str) -> None:
    raw = settings(tmp_path)
    config: Any = raw
    if kind == "file":
        config = tmp_path / "mine.yaml"
        config.write_text(write_yaml(raw))
    elif kind == "experiment":
        config = parse(raw)
    changes = {
        "kd.temperature": np.float32(4.0),
        "optimizer.lr": 1e-05,
        "student.layers": 2,
        "data.labels": ["no", "yes"],
        "student.tokenizer": tmp_path / "tokenizer",
        "trainer.micro_batch_size": None,
    }
    found = experiment_of(config, overrides=changes)
    assert (found.kd.temperature, found.optimizer.lr, found.student.layers) == (4.0, 1e-05, 2)
    assert found.data.labels == ("no", "yes")
    assert found.student.tokenizer == str(tmp_path / "tokenizer")
    listed = experiment_of(config, overrides=["kd.temperature=4", "optimizer.lr=1e-5"])
    assert (listed.kd.temperature, listed.optimizer.lr) == (4.0, 1e-05)
    assert raw["data"]["path"] == "none" and "kd" not in raw  # the caller's dict is left alone
    assert experiment_of(config) == parse(raw | {"tracking": found.tracking.model_dump()})


def test_an_override_keeps_every_character(tmp_path: Path) -> None:
    name = "😀 é \u2028 \x7f \\ud83d \"'\n"
    found = experiment_of(settings(tmp_path), overrides={"tracking.run_name": name})
    assert found.tracking.run_name == name


def test_overrides_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="overrides is the string 'a=1': give a list"):
        experiment_of(settings(tmp_path), overrides="a=1")
    with pytest.raises(ConfigError, match=r"override kd\.alpha: <object .* is not a valid"):
        experiment_of(settings(tmp_path), overrides={"kd.alpha": object()})
    with pytest.raises(ConfigError, match="the configuration is a int"):
        experiment_of(3)  # type: ignore[arg-type]


# ---- data ----------------------------------------------------------------------------------------


def tables() -> dict[str, Any]:
    import datasets

    table = pa.Table.from_pylist(ROWS)
    return {
        "pandas": pandas.DataFrame(ROWS, index=range(100, 160)),
        "category": pandas.DataFrame(ROWS).astype({"label": "category"}),
        "pyarrow": table,
        "batch": table.to_batches()[0],
        "datasets": datasets.Dataset.from_list(ROWS),
        "rows": ROWS,
        "columns": {name: [row[name] for row in ROWS] for name in ("text", "label")},
    }


def test_every_kind_of_table_is_the_same_data(tmp_path: Path) -> None:
    found = {}
    for kind, data in tables().items():
        experiment = experiment_of(settings(tmp_path), data=data)
        again = experiment_of(settings(tmp_path), data=data)
        assert again.data.path == experiment.data.path, kind  # so that the same call resumes
        found[kind] = build_corpus(experiment.data).fingerprint
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    named = experiment_of(settings(tmp_path), data=tmp_path / "rows.parquet")
    assert set(found.values()) == {build_corpus(named.data).fingerprint}
    left = [path.name for path in (tmp_path / "cache" / "tables").iterdir()]
    assert not [name for name in left if name.startswith(".")]


def test_other_content_is_other_data(tmp_path: Path) -> None:
    changed = [*ROWS[:-1], ROWS[-1] | {"label": "no"}]
    paths = [experiment_of(settings(tmp_path), data=rows).data.path for rows in (ROWS, changed)]
    assert paths[0] != paths[1]


def test_splits_and_class_names_of_datasets_are_kept(tmp_path: Path) -> None:
    import datasets

    names = datasets.ClassLabel(names=["negative", "positive"])
    features = datasets.Features({"text": datasets.Value("string"), "label": names})

    def part(start: int, stop: int) -> Any:
        rows = [{"text": row["text"], "label": i % 2} for i, row in enumerate(ROWS)][start:stop]
        return datasets.Dataset.from_list(rows, features)

    parts = {"train": part(0, 40), "validation": part(40, 50), "test": part(50, 60)}
    corpora = [
        build_corpus(experiment_of(settings(tmp_path), data=data).data)
        for data in (datasets.DatasetDict(parts), parts)
    ]
    for corpus in corpora:
        assert corpus.label_names == ("negative", "positive")
        assert [len(corpus.rows(s)) for s in ("train", "validation", "test")] == [40, 10, 10]
        assert corpus.texts_of(corpus.rows("test"))[0][0] == ROWS[50]["text"]
    filtered = parts["train"].filter(lambda row: row["label"] == 1)  # rows by indices
    assert build_corpus_rows(filtered, tmp_path) == 20


def build_corpus_rows(data: Any, tmp_path: Path) -> int:
    path = path_of(data, tmp_path / "cache")
    assert isinstance(path, str)
    return parquet.read_table(path).num_rows


def test_features_of_pandas_are_lists_or_columns(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(60, 2))
    labels = [row["label"] for row in ROWS]
    lists = pandas.DataFrame({"x": list(points), "label": labels})
    columns = pandas.DataFrame({"a": points[:, 0], "b": points[:, 1], "label": labels})
    corpora = [
        build_corpus(experiment_of(settings(tmp_path, columns={"features": names}), data=data).data)
        for names, data in (("x", lists), (["a", "b"], columns))
    ]
    assert corpora[0].features_of([0, 5]).tolist() == corpora[1].features_of([0, 5]).tolist()


def test_data_that_is_none(tmp_path: Path) -> None:
    import datasets

    stream = datasets.Dataset.from_list(ROWS).to_iterable_dataset()
    bad: list[tuple[Any, str]] = [
        (3, "data is a int: give a path, a pandas DataFrame"),
        (pa.table({"text": []}), "the Table has no rows"),
        (stream, "datasets.IterableDataset, which has no length"),
        ({"a": [1], "b": [1, 2]}, "cannot convert"),
        ({"../x": pa.table({"text": ["a"]})}, "the split '../x' cannot be used as a file name"),
    ]
    for data, message in bad:
        with pytest.raises(DataError, match=message):
            experiment_of(settings(tmp_path), data=data)


# ---- teachers ------------------------------------------------------------------------------------


def test_a_transformers_model_with_its_tokenizer(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "encoder", num_labels=2)
    model, tokenizer = load_classifier(folder), load_tokenizer(folder)
    raw = settings(tmp_path, max_length=16) | {"student": {"layers": 1, "hidden": 32}}
    teachers = {"C++ & C": (model, tokenizer)}
    experiment = experiment_of(raw, teachers, data=ROWS)
    (teacher,) = experiment.teachers
    assert teacher.name == "C++ & C" and not teacher.allow_pickle
    assert experiment_of(raw, teachers, data=ROWS).teachers == experiment.teachers
    engine = backend_of(teacher.path, num_labels=2)
    del engine  # it loads
    ids = tokenizer("the film was good", return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(load_classifier(teacher.path)(**ids).logits, model(**ids).logits)
    plan = check(experiment)
    assert plan.teacher_names == ("C++ & C",) and plan.corpus.label_names == ("no", "yes")
    # Other weights are another teacher, and so another experiment.
    with torch.no_grad():
        model.classifier.bias += 1
    other = experiment_of(raw, teachers, data=ROWS)
    assert identity(other, "d") != identity(experiment, "d")


class Thresholds(torch.nn.Module):
    """Logits by hand."""

    classes = ("no", "yes")

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.stack([-features[:, 0], features[:, 0]], 1)


def test_torch_modules_of_features(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    labels = ["yes" if x > 0 else "no" for x in points[:, 0]]
    data = pandas.DataFrame({"a": points[:, 0], "b": points[:, 1], "label": labels})
    raw = settings(tmp_path, columns={"features": ["a", "b"]})
    own = build_classifier(
        "mlp",
        FeatureSpace(("a", "b"), (0.0,) * 2, (1.0,) * 2),
        ("no", "yes"),
        layers=1,
        hidden=8,
        dropout=0,
    )
    teachers: dict[str, Any] = {
        "by hand": Thresholds().train(),
        "mlp": {"model": own, "num_cpus": 0.5},
    }
    experiment = experiment_of(raw, teachers, data=data)
    by_hand, mlp = experiment.teachers
    assert teachers["by hand"].training  # left in the mode that it was in
    assert by_hand.allow_pickle and not mlp.allow_pickle
    served = load_pickled(by_hand.path, True)
    want = torch.from_numpy(points).double()[:, :1] * torch.tensor([[-1.0, 1.0]])
    np.testing.assert_allclose(served.predict_proba(points), want.softmax(1), atol=1e-6)
    assert check(experiment).teacher_names == ("by hand", "mlp")


def test_overrides_reach_teachers_that_are_objects(tmp_path: Path) -> None:
    model = LogisticRegression().fit([[0.0], [1.0]], ["no", "yes"])
    raw = settings(tmp_path, columns={"features": "x"})
    found = experiment_of(raw, {"lr": model}, overrides={"teachers.0.replicas": 2})
    assert [t.replicas for t in found.teachers] == [2]


def test_a_dict_has_other_keys_of_a_teacher(tmp_path: Path) -> None:
    model = LogisticRegression().fit([[0.0], [1.0]], ["0", "1"])
    raw = settings(tmp_path)
    labels = {"0": "no", "1": "yes"}
    found = experiment_of(raw, {"a": {"model": model, "labels": labels, "num_cpus": 2}})
    (teacher,) = found.teachers
    assert (teacher.labels, teacher.num_cpus, teacher.allow_pickle) == (labels, 2, True)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(model))
    # Who passes an object trusts it; a path of one needs the permission.
    (path,) = experiment_of(raw, {"a": tmp_path / "a.pkl"}).teachers
    assert not path.allow_pickle
    trusted = {"a": {"path": tmp_path / "a.pkl", "allow_pickle": True}}
    assert experiment_of(raw, trusted).teachers[0].allow_pickle


class Unpicklable(LogisticRegression):
    def __reduce__(self) -> Any:
        raise io.UnsupportedOperation("an open connection")


def test_teachers_that_are_none(tmp_path: Path) -> None:
    model = load_classifier(write_encoder(tmp_path / "encoder", num_labels=2))
    bad: list[tuple[Any, str]] = [
        (model, "without its tokenizer: give both, as teachers="),
        (torch.nn.Linear(2, 2), "a torch module without classes"),
        (3, "without predict_proba.*; a teacher is "),
        ({"labels": {}}, "give it one of 'model' and 'path'"),
        (Unpicklable().fit([[0.0], [1.0]], ["a", "b"]), "cannot be pickled .*an open connection"),
    ]
    for teacher, message in bad:
        with pytest.raises(ModelError, match=message):
            experiment_of(settings(tmp_path), {"mine": teacher})


# ---- the package ---------------------------------------------------------------------------------


def test_import_is_light_and_tab_finds_the_functions() -> None:
    """In a process of its own, which has imported nothing else."""
    code = """
import json, sys
import distill
listed = [n for n in dir(distill) if n in distill.__all__]
heavy = [n for n in ("torch", "ray", "numpy", "pandas", "pydantic") if n in sys.modules]
print(json.dumps([listed == distill.__all__, heavy, distill.__version__]))
"""
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    is_listed, heavy, version = json.loads(text.stdout.splitlines()[-1])
    assert is_listed and not heavy and version


def test_modules_do_not_replace_the_functions_of_their_name() -> None:
    from importlib import import_module

    import distill

    modules = {name: import_module(f"distill.{name}") for name in ("experts", "export", "report")}
    for name, module in modules.items():
        assert module.__name__ == f"distill.{name}"
        assert callable(getattr(distill, name)) and getattr(distill, name) is not module
    with pytest.raises(AttributeError, match="'distill' has no attribute 'trains'"):
        _ = distill.trains  # type: ignore[attr-defined]
