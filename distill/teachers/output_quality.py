"""Whether a language model's outputs are worth training on."""

from __future__ import annotations

import logging
import math
import threading
from dataclasses import dataclass, field

from distill.errors import TeacherAnswerError
from distill.records import AnswerStats

logger = logging.getLogger(__name__)

MAX_MASS_OUTSIDE = 0.01
"""Mean probability of tokens that the student does not share; more must not be lost silently."""
NUM_ERRORS = 3
"""Standard errors by which a mean must be above that: the first answers are few positions."""


def knows_nothing(perplexity: float, num_tokens: int) -> bool:
    """Whether a teacher predicts a text hardly better than a uniform draw from its vocabulary."""
    return perplexity >= num_tokens / 2


def knows_nothing_line(name: str, perplexity: float, num_tokens: int) -> str:
    return (
        f"teacher {name!r} has a perplexity of {perplexity:,.0f} on the rows, with a vocabulary of "
        f"{num_tokens:,} tokens: its weights, its tokenizer or the data are probably wrong, or it "
        "knows one domain only (aggregation.type: oracle gives each teacher the rows of its domain)"
    )


@dataclass
class Health:
    """Of all teachers, over all that they answered. Thread-safe."""

    is_data: bool = True
    """Whether they are queried about the data set's rows: what an untrained student generates is no
    test."""
    _sums: dict[str, AnswerStats] = field(default_factory=dict)
    _warned: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, name: str, stats: AnswerStats, num_tokens: int) -> None:
        """Add an answer's. Raises TeacherAnswerError once too much is outside the shared tokens;
        logs a warning, once, of a teacher that knows nothing of the data."""
        with self._lock:
            known = self._sums.get(name)
            total = self._sums[name] = stats if known is None else known + stats
            is_due = self.is_data and name not in self._warned
            if is_due and knows_nothing(total.perplexity, num_tokens):
                self._warned.add(name)
                logger.warning(knows_nothing_line(name, total.perplexity, num_tokens))
        mean = total.mass_outside
        # Of numbers between 0 and 1 the variance is at most the mean.
        if mean - NUM_ERRORS * math.sqrt(mean / total.num_positions) > MAX_MASS_OUTSIDE:
            raise TeacherAnswerError(
                f"teacher {name!r} gives {mean:.1%} of its probability to tokens that its "
                "tokenizer does not share with the student's, more than "
                f"{MAX_MASS_OUTSIDE:.0%}: use a student with the teacher's tokenizer or, for "
                "texts, objective.type: uld, which compares across tokenizers"
            )
