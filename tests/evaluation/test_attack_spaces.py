"""What an attack may change: 15 % of the words, each style once, names of code."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from distill.evaluation.attacks import CodeSpace, TextSpace
from distill.evaluation.attacks.spaces import MAX_REPLACED, STYLES, TRIES, WORD_STYLES
from distill.transform import TRANSFORMATIONS
from distill.transform.text import TEXT_TRANSFORMATIONS, synonyms_by_word

WORDS = [f"word{a}{b}" for a in "abcdefgh" for b in "abcde"]
CODE = """\
int total(int *numbers, int count) {
    int sum = 0;
    for (int i = 0; i < count; i++) {
        sum += numbers[i];
    }
    return sum;
}
"""
NAMES = ("alpha", "beta", "delta")


# ---- natural text ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_words", "most"), [(40, 6), (20, 3), (14, 2), (13, 1), (6, 1), (1, 1)]
)
def test_at_most_15_percent_of_the_words_are_replaced(num_words: int, most: int) -> None:
    assert MAX_REPLACED == 0.15
    words = WORDS[:num_words]
    space = TextSpace(" ".join(words))
    assert space.parts == tuple(words)
    for num in range(1, num_words + 1):
        changed = space.replaced({word: word.upper() for word in words[:num]})
        if num > most:
            assert changed is None
        else:
            assert changed is not None
            assert sum(a != b for a, b in zip(words, changed.split(), strict=True)) == num


def test_a_word_counts_as_often_as_it_stands_but_one_may_always_be_replaced() -> None:
    text = "cat " * 5 + " ".join(WORDS[:15])  # 15 % of 20 words are 3
    space = TextSpace(text)
    assert space.replaced({"cat": "dog"}) == text.replace("cat", "dog")
    assert space.replaced({"cat": "dog", WORDS[0]: "x"}) is None
    assert space.replaced(dict.fromkeys(WORDS[:3], "x")) is not None


def test_words_have_three_letters_or_more_and_each_is_a_part_once() -> None:
    space = TextSpace("A cat, an ox and the cat of no. 12ab abc_def!")
    assert space.parts == ("cat", "and", "the", "abc", "def")
    assert space.replaced({"cat": "dog"}) == "A dog, an ox and the dog of no. 12ab abc_def!"


def test_substitutes_of_a_word_are_synonyms_and_typing_errors() -> None:
    word = "good"
    synonyms = set(synonyms_by_word()[word])
    found = {
        s for seed in range(60) for s in TextSpace("").substitutes(word, 4, random.Random(seed))
    }
    assert synonyms < found and word not in found
    typed = found - synonyms
    assert typed and all(s[0] == "g" and s[-1] == "d" for s in typed)
    for num in (1, 3):
        for seed in range(60):
            words = TextSpace("").substitutes(word, num, random.Random(seed))
            assert 1 <= len(words) == len(set(words)) <= num
    # A word without synonyms and too short for a typing error has none.
    assert TextSpace("").substitutes("xyz", 4, random.Random(0)) == []


def test_a_round_of_styles_has_three_tries_of_each() -> None:
    assert TRIES == 3 and WORD_STYLES == ("synonyms", "typos")
    text = " ".join(f"A good film, number{i}: the story was bad." for i in "abcdefghij")
    texts = TextSpace(text).styled(random.Random(0))
    assert len(texts) == len(set(texts)) == 3 * len(TEXT_TRANSFORMATIONS)
    assert text not in texts
    assert TextSpace("42").styled(random.Random(0)) == []  # nothing applies


def is_case(before: str, after: str) -> bool:
    return before != after and before.lower() == after.lower()


def is_punctuation(before: str, after: str) -> bool:
    return before != after and re.findall(r"\w+", before) == re.findall(r"\w+", after)


def test_each_style_is_taken_once() -> None:
    text = "The good film, a long story. Was it bad? Nobody knows; everybody cried!"
    rng = random.Random(0)
    space = TextSpace(text)
    (recased, *_) = [t for t in space.styled(rng) if is_case(text, t)]
    space = space.moved(recased)
    texts = space.styled(rng)
    assert not any(is_case(recased, t) for t in texts)
    (marked, *_) = [t for t in texts if is_punctuation(recased, t)]
    space = space.moved(marked)
    texts = space.styled(rng)
    assert texts and not any(is_case(marked, t) or is_punctuation(marked, t) for t in texts)
    assert all(re.sub(r"\w", "", t) == re.sub(r"\w", "", marked) for t in texts)  # words alone


def test_styles_replace_no_word_after_the_search_for_names_did() -> None:
    text = "The good film, a long story. Was it bad? Nobody knows; everybody cried!"
    space = TextSpace(text)
    renamed = space.replaced({"good": "fine"})
    assert renamed is not None
    texts = space.moved(renamed).styled(random.Random(0))
    assert texts and all(is_case(renamed, t) or is_punctuation(renamed, t) for t in texts)


# ---- code --------------------------------------------------------------------------------------


def test_names_of_code_are_those_of_other_snippets() -> None:
    space = CodeSpace(CODE, "c", NAMES)
    assert set(space.parts) == {"total", "numbers", "sum", "i"}
    found = Counter[str]()
    for seed in range(40):
        names = space.substitutes("sum", 2, random.Random(seed))
        assert 1 <= len(names) == len(set(names)) <= 2
        found.update(names)
    assert set(found) == set(NAMES)


def test_a_name_is_replaced_everywhere_and_never_by_that_of_another() -> None:
    space = CodeSpace(CODE, "c", NAMES)
    assert space.replaced({"sum": "alpha"}) == CODE.replace("sum", "alpha")
    both = space.replaced({"sum": "alpha", "numbers": "beta"})
    assert both == CODE.replace("sum", "alpha").replace("numbers", "beta")
    assert space.replaced({"sum": "alpha", "numbers": "alpha"}) is None


def test_styles_of_code_are_all_but_renaming() -> None:
    assert set(STYLES) == set(TRANSFORMATIONS) - {"rename"}
    space = CodeSpace(CODE, "c", NAMES)
    texts = space.styled(random.Random(0))
    assert len(texts) >= 4 and CODE not in texts and None not in texts
    identifiers = {"total", "numbers", "count", "sum"}
    assert all(identifiers <= set(re.findall(r"\w+", text)) for text in texts)
    assert space.styled(random.Random(0)) == texts
    assert any(space.styled(random.Random(seed)) != texts for seed in range(1, 5))


def test_the_space_around_another_text_has_the_same_names_and_language() -> None:
    moved = CodeSpace("int f(int a) { return a; }", "c", NAMES).moved(CODE)
    assert moved.text == CODE
    assert moved.substitutes("sum", 3, random.Random(0)) == CodeSpace(CODE, "c", NAMES).substitutes(
        "sum", 3, random.Random(0)
    )
    assert moved.styled(random.Random(0)) == CodeSpace(CODE, "c", NAMES).styled(random.Random(0))


def test_code_that_does_not_parse_has_nothing_to_change() -> None:
    assert CodeSpace("int total(int *numbers {", "c", NAMES).parts == ()
