"""The driver's phases with a shared memory, without Ray: which fits are found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from distill.config.memory import SharedMemory
from distill.driver.memory.store import Memory
from distill.driver.task_stages import TaskStages
from tests.driver.test_chain_links import Local, done, local, teacher  # noqa: F401 (a fixture)
from tests.driver.test_task_stages import Run
from tests.toys import DOMAINS
from tests.toys_tasks import Scripted


class Trained(Scripted):
    """Tasks leave weights and metrics too."""

    def check(self, handle: str, name: str) -> None:
        super().check(handle, name)
        folder = Path(self.jobs[handle].folder)
        (folder / "best.safetensors").write_text(f"weights of {name}")
        (folder / "metrics.jsonl").write_text(
            '{"step": 1, "metrics": {"eval.accuracy": 0.5, "eval.f1": 0.5}}\n'
        )


def opened(root: Path, printed: list[str]) -> Memory:
    return Memory(SharedMemory(path=str(root / "memory")), printed.append)


@pytest.mark.parametrize("targets", ["partition", "lowest_loss"])
def test_experts_router_and_baselines_are_found_by_the_next_run(
    tmp_path: Path, targets: str
) -> None:
    printed: list[str] = []
    for name in ("first", "second"):
        launcher = Trained(num_cpus=4)
        run = Run(tmp_path, tmp_path / name, launcher, targets=targets)
        memory = opened(tmp_path, printed)
        run.d = replace(run.d, memory=memory)
        run.tasks = TaskStages(run.d, launcher)
        assert run.experts_trained() == [*DOMAINS, "router"]
        found = run.d.memory.metrics()
        assert found["memory.students.accesses"] == 5
        assert found["memory.students.hits"] == (0 if name == "first" else 5)
    names = [*DOMAINS, "alone", "router"]
    assert sorted(printed) == sorted(
        f"{name}: found in the shared memory, not trained again" for name in names
    )
    for name in names:
        folder = "baselines" if name == "alone" else "experts"
        for file in ("best.safetensors", "done.json", "metrics.jsonl"):
            first, second = (tmp_path / run / folder / name / file for run in ("first", "second"))
            assert second.read_bytes() == first.read_bytes()


def test_links_that_are_found_need_no_teachers(
    tmp_path: Path,
    teacher: Path,  # noqa: F811
) -> None:
    logs = []
    for name in ("first", "second"):
        printed: list[str] = []
        (tmp_path / name).mkdir()
        chain = local(tmp_path / name, teacher)
        own = Local(chain.experiment, chain.plan, memory=opened(tmp_path, printed))
        own.run()
        logs.append(done(own.log))
    assert "link 2 from link 1" in logs[0]
    # Only those of link 1, which the links are compared with.
    assert logs[1] == ["serve big", "measure with link 1", "let big go"]
    assert printed == [
        f"{name}: found in the shared memory, not trained again"
        for name in ("link 1", "link 2", "student")
    ]
