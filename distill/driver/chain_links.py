"""Which links of a chain are kept.

    <output>/links/<i>/          the fit of intermediate link i; model/: its export
    <output>/links/chain.json    the decisions; a resumed run goes on after the last one

See config/chain.py for the sizes and the rule. A link is trained as the student is; link 1 by all
teachers, each later one, and the student, by the last link that was kept.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from distill.config import Chain
from distill.config.chain import is_dropped, relative_change
from distill.errors import RunFolderError
from distill.tasks.chained import Decision
from distill.training.fitted import best_evaluation
from distill.training.job import Job

FILE = "chain.json"


@dataclass(frozen=True)
class ChainRecord:
    """What ``chain.json`` holds."""

    metric: str
    teachers: float | None = None
    """The aggregated teachers' value."""
    links: tuple[Decision, ...] = ()

    @classmethod
    def read(cls, path: Path, metric: str = "") -> ChainRecord:
        """An empty one, of ``metric``, where there is no file; RunFolderError for one that is
        unreadable."""
        if not path.exists():
            return cls(metric)
        try:
            content = json.loads(path.read_text("utf-8"))
            links = tuple(Decision(**link) for link in content["links"])
            return cls(content["metric"], content["teachers"], links)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunFolderError(
                f"{path} is unreadable ({error}): delete it, the same command then measures the "
                "links again"
            ) from None

    def write(self, path: Path) -> None:
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), indent=1), "utf-8")
        os.replace(partial, path)


def decision_on(job: Job, chain: Chain, record: ChainRecord) -> Decision:
    """Of the next link, which is trained: the settings, and the values before it."""
    value = best_evaluation(job)[record.metric]
    number = len(record.links) + 1
    before = record.links[-1].value if record.links else record.teachers
    against = record.links[-1].name if record.links else "the teachers"
    if before is None:
        return Decision(job.name, value, None, True, "the teachers' value is not known")
    change = relative_change(before, value, job.selection.prefers_low)
    is_kept = not is_dropped(chain.stop, chain.epsilon, number, change)
    how = "better" if change >= 0 else "worse"
    reason = (
        f"{abs(change):.2%} {how} than {against} ({before:.4g}); chain.stop {chain.stop}, epsilon "
        f"{chain.epsilon:g}"
    )
    return Decision(job.name, value, change, is_kept, reason)


def line_of(decision: Decision, metric: str) -> str:
    kept = "kept" if decision.is_kept else "dropped, the chain ends"
    return f"{decision.name}: {metric} {decision.value:.4g}, {decision.reason}: {kept}"
