"""How much the teachers did, and how long the student waited for them."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from distill.records import AnswerStats, ExpertUsage
from distill.teachers.served import ServedTeacher, groups


@dataclass
class Meter:
    """Sums since the last read, under stable names. Thread-safe."""

    teachers: Sequence[ServedTeacher]
    num_ranks: int = 1
    """That share the teachers' replicas."""
    clock: Callable[[], float] = time.perf_counter
    _since: float = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _sums: dict[str, float] = field(default_factory=dict)
    _usage: dict[str, ExpertUsage] = field(default_factory=dict)
    _stats: dict[str, AnswerStats] = field(default_factory=dict)
    _num_steps: int = 0

    def __post_init__(self) -> None:
        self._since = self.clock()

    def received(self, name: str, **amounts: float) -> None:
        with self._lock:
            for what, amount in amounts.items():
                self._add(f"teacher.{name}.{what}", amount)

    def used(self, name: str, usage: ExpertUsage | None) -> None:
        """Of a mixture of experts: who was asked."""
        if usage is None:
            return
        with self._lock:
            known = self._usage.get(name)
            self._usage[name] = usage if known is None else known + usage

    def sampled(self, name: str, stats: AnswerStats) -> None:
        """Of a language model: what a sample of its positions shows."""
        with self._lock:
            known = self._stats.get(name)
            self._stats[name] = stats if known is None else known + stats

    def waited(self, seconds: float, slowest: str | None, num_ready: int) -> None:
        with self._lock:
            self._num_steps += 1
            self._add("stream.wait_s", seconds)
            self._add("stream.queue_depth", num_ready)
            if slowest is not None:
                self._add(f"teacher.{slowest}.wait_s", seconds)

    def _add(self, name: str, amount: float) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + amount

    def read(self) -> dict[str, float]:
        """The same names whatever happened; NaN for what there is nothing to tell of."""
        names = [teacher.name for teacher in self.teachers]
        kinds = ("wait_s", "rows", "bytes", "cached_rows", "compute_s", "clamped")
        zeros = {f"teacher.{name}.{kind}": 0.0 for name in names for kind in kinds}
        of_models = (*ExpertUsage.METRICS, "perplexity", "mass_outside")
        unknown = {f"teacher.{name}.{kind}": math.nan for name in names for kind in of_models}
        with self._lock:
            sums = zeros | unknown | {"stream.wait_s": 0.0, "stream.queue_depth": 0.0} | self._sums
            sums["stream.queue_depth"] /= max(1, self._num_steps)
            now = self.clock()
            seconds, self._since = max(now - self._since, 1e-9), now
            for group in groups(self.teachers):  # whose replicas are busy with any of them
                # Against a rank's share of the replicas, so that the ranks' mean is that of all.
                busy_s = sum(sums[f"teacher.{teacher.name}.compute_s"] for teacher in group)
                for teacher in group:
                    share_s = busy_s / (teacher.serving.replicas / self.num_ranks)
                    sums[f"teacher.{teacher.name}.idle_rate"] = max(0.0, 1 - share_s / seconds)
            for name, usage in self._usage.items():
                sums |= {f"teacher.{name}.{what}": x for what, x in usage.metrics().items()}
            for name, stats in self._stats.items():
                sums[f"teacher.{name}.perplexity"] = stats.perplexity
                sums[f"teacher.{name}.mass_outside"] = stats.mass_outside
            self._sums, self._usage, self._stats, self._num_steps = {}, {}, {}, 0
        return sums
