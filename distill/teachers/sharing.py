"""How much a teacher says in tokens that its student does not have."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field

from distill.errors import TeacherAnswerError
from distill.records import AnswerStats

MAX_MASS_OUTSIDE = 0.01
"""Mean probability of such tokens; more would be lost without a word."""
NUM_ERRORS = 3
"""Standard errors by which a mean must be above that: the first answers are few positions."""


@dataclass
class Sharing:
    """Of all teachers, over all that they answered. Thread-safe."""

    _sums: dict[str, AnswerStats] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, name: str, stats: AnswerStats | None) -> None:
        """Add an answer's; raises TeacherAnswerError once the mean is too large."""
        if stats is None:
            return
        with self._lock:
            known = self._sums.get(name)
            total = self._sums[name] = stats if known is None else known + stats
        mean = total.mass_outside
        # Of numbers between 0 and 1 the variance is at most the mean.
        if mean - NUM_ERRORS * math.sqrt(mean / total.num_positions) > MAX_MASS_OUTSIDE:
            raise TeacherAnswerError(
                f"teacher {name!r} gives {mean:.1%} of its probability to tokens that the "
                f"student's tokenizer does not share, more than {MAX_MASS_OUTSIDE:.0%}: use "
                "objective.type: uld, which compares across tokenizers, or give student.tokenizer "
                "(and student.path) the teacher's tokens"
            )
