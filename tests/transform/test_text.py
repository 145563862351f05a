import re
import subprocess
import sys
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.transform.features import noise
from distill.transform.text import (
    TEXT_TRANSFORMATIONS,
    case,
    punctuation,
    synonyms,
    synonyms_by_word,
    typos,
)

SENTENCE = (
    "An amazing film, really. The plot is boring, however the actors are GREAT! It isn't a big "
    "problem; see it immediately. Über 3.5 Straßen?"
)
TEXTS = st.one_of(
    st.text(max_size=200), st.lists(st.sampled_from(SENTENCE.split())).map(" ".join)
)  # fmt: skip


@pytest.mark.parametrize("name", sorted(TEXT_TRANSFORMATIONS))
def test_text_changes_and_by_the_same_seed_alike(name):
    change = TEXT_TRANSFORMATIONS[name]
    results = [change(SENTENCE, Random(seed)) for seed in range(20)]
    assert results == [change(SENTENCE, Random(seed)) for seed in range(20)]
    assert SENTENCE not in results and len(set(results)) > 5
    assert change("", Random(0)) == "" and change("3 + 4 = 7", Random(0)) == "3 + 4 = 7"


@given(TEXTS, st.integers(0, 1000))
def test_typos_stay_inside_words_and_change_a_letter_or_two(text, seed):
    before, after = (re.split(r"\s", t) for t in (text, typos(text, Random(seed))))
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        if old != new:
            assert abs(len(new) - len(old)) <= len(re.findall(r"[^\W\d_]{4,}", old))
            assert (new[0], new[-1]) == (old[0], old[-1])


@given(TEXTS, st.integers(0, 1000))
def test_case_changes_nothing_but_case(text, seed):
    assert case(text, Random(seed)).casefold() == text.casefold()


@given(TEXTS, st.integers(0, 1000))
def test_punctuation_changes_nothing_but_marks(text, seed):
    def bare(text: str) -> str:
        return re.sub(r"[!.,;?]", "", text)

    assert bare(punctuation(text, Random(seed))) == bare(text)


@given(TEXTS, st.integers(0, 1000))
def test_synonyms_are_those_of_the_list_and_leave_all_else(text, seed):
    result = synonyms(text, Random(seed))
    before, after = (re.split(r"([^\W\d_]+)", t) for t in (text, result))
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert old == new or new.lower() in synonyms_by_word()[old.lower()]
        assert old[:1].isupper() == new[:1].isupper()


def test_an_article_stays_right():
    results = {synonyms("an amazing day and a big house", Random(seed)) for seed in range(50)}
    assert any("an astounding day" in result for result in results)
    assert any("a large house" in result for result in results)
    many = {synonyms("a strange thing", Random(seed)) for seed in range(50)}
    assert many <= {"a strange thing", "a weird thing"}, "odd would need an `an`"
    assert len(many) == 2 or many == {"a weird thing"}


def test_the_shipped_list_has_hundreds_of_single_words_and_no_word_is_its_own_synonym():
    known = synonyms_by_word()
    assert len(known) >= 300
    for word, others in known.items():
        assert others and word not in others and len(set(others)) == len(others)
        assert all(re.fullmatch(r"[a-z]+", each) for each in (word, *others))


def test_noise_is_bounded_in_standard_deviations_and_fills_its_range():
    features_BD = np.tile(np.array([1.0, -2.0, 5.0], np.float32), (2000, 1))
    sd_D = np.array([1.0, 0.0, 10.0])
    noisy_BD = noise(features_BD, sd_D, 0.1, np.random.default_rng(0))
    shift_BD = (noisy_BD - features_BD).astype(np.float64)
    assert noisy_BD.dtype == np.float32
    assert (np.abs(shift_BD) <= 0.1 * sd_D + 1e-5).all()
    assert (shift_BD[:, 1] == 0).all(), "a constant feature stays"
    # Uniform on ±b: standard deviation b/√3.
    assert np.allclose(shift_BD.std(0), 0.1 * sd_D / 3**0.5, rtol=0.05)
    again_BD = noise(features_BD, sd_D, 0.1, np.random.default_rng(0))
    assert (again_BD == noisy_BD).all()
    assert (noise(features_BD, sd_D, 0.0, np.random.default_rng(0)) == features_BD).all()


def test_the_package_is_of_the_core_ring_and_loads_no_grammar_before_it_parses():
    code = (
        "import sys; sys.modules.update(ray=None, mlflow=None, deepspeed=None); "
        "import distill.transform, distill.transform.text, distill.transform.features; "
        "assert not any(name.startswith('tree_sitter_') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
