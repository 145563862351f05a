"""Texts that a language model generates greedily, compared with references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from transformers import PreTrainedModel

from distill.errors import ConfigError
from distill.models.greedy import end_ids, generate


@dataclass(frozen=True)
class GenerationScores:
    """Sums over generated answers and their references; they add."""

    num: float = 0.0
    num_exact: float = 0.0
    rouge_l_sum: float = 0.0

    def __add__(self, other: GenerationScores) -> GenerationScores:
        return GenerationScores(
            *(a + b for a, b in zip(astuple(self), astuple(other), strict=True))
        )

    @property
    def exact_match(self) -> float:
        """Share of answers that equal the reference, white space aside."""
        assert self.num > 0, "exact match of no answers"
        return self.num_exact / self.num

    @property
    def rouge_l(self) -> float:
        """Mean F1 of the longest common subsequence of words, Lin 2004; see rouge_score."""
        assert self.num > 0, "ROUGE-L of no answers"
        return self.rouge_l_sum / self.num


def score_answers(answers: Sequence[str], references: Sequence[str]) -> GenerationScores:
    """ROUGE-L is rouge_score's (without stemming): words are runs of a–z and 0–9 in lower case, so
    it is not defined for text in other scripts."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise ConfigError(
            "ROUGE-L needs the package rouge-score: pip install rouge-score, or set "
            "generation.num_prompts: 0"
        ) from None

    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    scores = GenerationScores()
    for answer, reference in zip(answers, references, strict=True):
        is_exact = " ".join(answer.split()) == " ".join(reference.split())
        rouge_l = scorer.score(reference, answer)["rougeL"].fmeasure
        scores += GenerationScores(1.0, float(is_exact), rouge_l)
    return scores


def write_answers(
    model: PreTrainedModel,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int = 8,
    should_stop: Callable[[], bool] = lambda: False,
    turn_ends: Sequence[int] = (),
) -> list[str]:
    """The text after each prompt (token ids), special tokens left out; see :func:`generate`.

    ``turn_ends``: of chats, what ends an answer besides the end-of-text token.
    """
    ends = end_ids(model, tokenizer, turn_ends)
    generated = generate(model, prompts, max_new_tokens, ends, batch_size, should_stop)
    return tokenizer.batch_decode(generated, skip_special_tokens=True)
