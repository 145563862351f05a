"""Objects with predict_proba as teachers: p again, zeros counted, columns never guessed."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from distill.errors import ModelError, TeacherAnswerError
from distill.teachers.probability import (
    SMALLEST,
    check_columns,
    file_fingerprint,
    label_names,
    load_pickled,
)
from distill.teachers.requests import TeacherRequest
from distill.wires import decode_dense
from tests.toys_teachers import backend_of

RNG = np.random.default_rng(0)
FEATURES_BD = RNG.normal(size=(80, 4)).astype(np.float32)
LABELS_B = np.array(["low", "mid", "high"])[
    np.digitize(FEATURES_BD[:, 0] + RNG.normal(0, 0.3, 80), [-0.5, 0.5])
]


class Stub:
    """Answers whatever it is made of."""

    def __init__(self, probs_BV: np.ndarray, classes: tuple = ("a", "b")) -> None:
        self.probs_BV = probs_BV
        self.classes_ = classes

    def predict_proba(self, rows: object) -> np.ndarray:
        return self.probs_BV


def forest() -> RandomForestClassifier:
    return RandomForestClassifier(10, random_state=0).fit(FEATURES_BD, LABELS_B)


def ask(features_BD: np.ndarray = FEATURES_BD) -> TeacherRequest:
    return TeacherRequest("r", np.arange(len(features_BD)), features_BD=features_BD)


def test_the_answer_is_the_log_of_clamped_probabilities(tmp_path: Path) -> None:
    model = forest()
    (tmp_path / "forest.pkl").write_bytes(pickle.dumps(model))
    probs_BV = model.predict_proba(FEATURES_BD)
    assert (probs_BV == 0).any(), "a forest of ten trees is certain of some rows"
    for given in (model, tmp_path / "forest.pkl"):
        engine = backend_of(given, num_labels=3, allow_pickle=True)
        output = engine.answer(ask())
        logits_BV = decode_dense(output.payload, output.wire)
        want_BV = np.log(np.maximum(probs_BV, SMALLEST))
        np.testing.assert_allclose(logits_BV.numpy(), want_BV, rtol=1e-6)
        np.testing.assert_allclose(logits_BV.softmax(1).numpy(), probs_BV, atol=3 * SMALLEST)
        assert output.num_clamped == (probs_BV == 0).sum()
    split = backend_of(model, num_labels=3, max_batch_tokens=7).answer(ask())
    assert np.array_equal(split.payload, output.payload)
    assert split.num_clamped == output.num_clamped


def test_a_pipeline_over_text_reads_the_text() -> None:
    texts = np.array(["good film", "bad film", "good soup", "bad soup"], object)
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0])
    output = backend_of(model, num_labels=2).answer(
        TeacherRequest("r", np.arange(4), texts_B=texts)
    )
    want = np.log(model.predict_proba(texts))
    np.testing.assert_allclose(decode_dense(output.payload, output.wire).numpy(), want, rtol=1e-6)
    assert output.num_clamped == 0


@pytest.mark.parametrize(
    ("probs_BV", "message"),
    [
        (np.full((2, 2), -0.1), r"outside \[0, 1\]"),
        (np.full((2, 2), np.nan), r"outside \[0, 1\]"),
        (np.full((3, 2), 0.5), r"2 rows the shape \[3, 2\]"),
        (np.full((2, 5), 0.2), r"expected \[2, 2\]"),
    ],
)
def test_what_is_no_probability_is_refused(probs_BV: np.ndarray, message: str) -> None:
    with pytest.raises(TeacherAnswerError, match=message):
        backend_of(Stub(probs_BV), num_labels=2).answer(ask(FEATURES_BD[:2]))


def test_labels_are_named_as_data_files_are_read() -> None:
    half = np.full((1, 2), 0.5)
    assert label_names(forest(), "f") == ("high", "low", "mid")
    assert label_names(Stub(half, (0, 10)), "f") == ("0", "10")
    assert label_names(Stub(half, (0.0, 1.0)), "f") == ("0", "1")
    assert label_names(Stub(half, (False, True)), "f") == ("0", "1")
    with pytest.raises(ModelError, match="without classes_: fit it first"):
        label_names(RandomForestClassifier(), "f")
    with pytest.raises(ModelError, match="f is a int without predict_proba"):
        label_names(3, "f")


def test_other_columns_than_those_of_the_fit_are_refused() -> None:
    with pytest.raises(ModelError, match=r"fitted on 4 features, data\.columns\.features gives 3"):
        check_columns(forest(), "f", ("pixels",), 3)
    named = forest()
    named.feature_names_in_ = np.array(["a", "b", "c", "d"], object)
    check_columns(named, "f", ("a", "b", "c", "d"), 4)
    with pytest.raises(ModelError, match="give the columns in the order of the fit"):
        check_columns(named, "f", ("a", "b", "d", "c"), 4)


def test_pickles_are_loaded_only_where_allowed(tmp_path: Path) -> None:
    path = tmp_path / "forest.pkl"
    path.write_bytes(pickle.dumps(forest()))
    with pytest.raises(ModelError, match="pickles run code: set allow_pickle: true"):
        load_pickled(path, False)
    load_pickled(path, True)
    before = file_fingerprint(path)
    path.write_bytes(path.read_bytes()[:100])
    assert file_fingerprint(path) != before
    with pytest.raises(ModelError, match="cannot be unpickled"):
        load_pickled(path, True)
    with pytest.raises(ModelError, match="neither a model folder nor a pickle"):
        load_pickled(Path(__file__), True)
    with pytest.raises(ModelError, match="there is no file"):
        load_pickled(tmp_path / "absent.pkl", True)
