"""A router that is the pickle of any object with predict_proba: asked, and in the right order."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from distill.aggregation import OracleDomain, Routed, Single, UniformMean
from distill.config import Cache, Serving, Stream, parse
from distill.data.corpus import Corpus
from distill.driver.checks.check import check
from distill.errors import ModelError
from distill.tasks.classification.specs import DataSpec
from distill.teachers.cache import TeacherKey
from distill.teachers.client import CacheOnlyClient
from distill.teachers.local import LocalTeachers
from distill.teachers.served import ServedTeacher
from distill.teachers.setup import TeacherSetup
from tests.toys import DOMAINS, toy_experiment, write_encoder
from tests.toys_teachers import answers_of_rows, backend_of


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A router that knows the domain of a text, and an expert for each domain."""
    root = tmp_path_factory.mktemp("router")
    toy_experiment(root)
    rows = pq.read_table(root / "data.parquet").to_pylist()
    router = make_pipeline(CountVectorizer(), LogisticRegression(C=100))
    router.fit([row["text"] for row in rows], [row["domain"] for row in rows])
    (root / "router.pkl").write_bytes(pickle.dumps(router))
    for seed, name in enumerate(DOMAINS):
        write_encoder(root / name, num_labels=2, seed=seed)
    return root


def raw(root: Path, names: tuple[str, ...], **aggregation: Any) -> dict[str, Any]:
    changes = toy_experiment(root)
    del changes["experts"]
    changes["teachers"] = [
        {"name": name, "path": str(root / name), "num_cpus": 0.1} for name in names
    ]
    router = {"type": "routed", "k": 1, "router": str(root / "router.pkl"), "allow_pickle": True}
    return changes | {"aggregation": router | aggregation}


def guidance_of(root: Path, corpus: Corpus, cache: Path) -> TeacherSetup:
    """Teachers and router in this process, k = 1."""
    folders = {name: str(root / name) for name in DOMAINS} | {"router": str(root / "router.pkl")}
    num_outputs = dict.fromkeys(DOMAINS, 2) | {"router": 3}
    engines = {
        name: backend_of(folder, num_labels=num_outputs[name], allow_pickle=True)
        for name, folder in folders.items()
    }
    *teachers, router = (
        ServedTeacher(
            name,
            folder,
            Serving(),
            num_outputs[name],
            TeacherKey(name, corpus.fingerprint, "t", "dense/float32", 16),
        )
        for name, folder in folders.items()
    )
    routed = Routed(k=1, router=router.folder)
    client = LocalTeachers(engines)
    return TeacherSetup(client, tuple(teachers), router, routed, Stream(), Cache(), str(cache))


def test_a_pickled_router_sends_each_row_home(root: Path, tmp_path: Path) -> None:
    corpus = check(parse(raw(root, DOMAINS))).corpus
    teacher_setup = guidance_of(root, corpus, tmp_path / "cache")
    data = DataSpec(str(corpus.folder), str(root / "encoder"), 16)
    test = corpus.rows("test")
    with teacher_setup.open(data, "test") as stream:
        answers = answers_of_rows(stream, test)
    assert answers.queried_KB.sum(0).tolist() == [1] * len(test)
    assert answers.queried_KB.int().argmax(0).tolist() == corpus.domains_of(test).tolist()


def test_one_pass_answers_for_every_aggregation(root: Path, tmp_path: Path) -> None:
    """What a sweep over aggregations relies on: after it nobody need be asked."""
    corpus = check(parse(raw(root, DOMAINS))).corpus
    teacher_setup = guidance_of(root, corpus, tmp_path / "cache")
    data = DataSpec(str(corpus.folder), str(root / "encoder"), 16)
    all_teachers = replace(teacher_setup, aggregation=teacher_setup.aggregation.querying_all())
    with all_teachers.open(data, "fill") as stream:
        whole = answers_of_rows(stream, corpus.rows("test")).logits_KBV
    cache_only = replace(teacher_setup, client=CacheOnlyClient((*DOMAINS, "router")))
    for aggregation in (
        Routed(k=1),
        Routed(k=2),
        Routed(k="all"),
        UniformMean(),
        OracleDomain(),
        *(Single(teacher=name) for name in DOMAINS),
    ):
        own = replace(cache_only, aggregation=aggregation)
        with own.open(data, aggregation.type) as stream:
            answers = answers_of_rows(stream, corpus.rows("test"))
        assert (answers.queried_KB.sum(0) == aggregation.num_queried(3)).all()
        assert torch.equal(answers.logits_KBV, whole * answers.queried_KB[..., None])


def test_a_pickled_router_must_be_allowed(root: Path) -> None:
    with pytest.raises(ModelError, match=r"router.pkl is a pickle, .*: set allow_pickle: true"):
        check(parse(raw(root, DOMAINS, allow_pickle=False)))


def test_a_router_of_other_teachers_is_refused(root: Path) -> None:
    message = (
        r"aggregation.router .*router.pkl has the labels films, meals, tools, those of the "
        r"teachers are films, meals, cars: 'tools' matches none .* must be these names, in any"
    )
    changes = raw(root, DOMAINS)
    changes["teachers"][2]["name"] = "cars"
    with pytest.raises(ModelError, match=message):
        check(parse(changes))
