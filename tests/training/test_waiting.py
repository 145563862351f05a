"""A fit whose teacher is away: one checkpoint, a wait, and the weights of an undisturbed fit."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distill.aggregation import UniformMean
from distill.config import KD, Optimizer
from distill.config.temperature import LossRatio
from distill.errors import Interrupted, TeacherAway, TeacherError
from distill.objectives import ForwardKL
from distill.records import Cursor, Step
from distill.teachers.waiting import Recovery, note_away, outage, until_done
from distill.training.checkpoints import FolderStore
from distill.training.class_module import DistillModule
from distill.training.engines import group_timeout
from distill.training.loop import Selection, TrainingIntervals, train
from distill.training.schedule import Schedule
from tests.toys import NUM_CLASSES, ToyTeachers, tiny_bert, toy_batches
from tests.toys_ranks import Ranks, ThreadEngine

OPTIMIZER = Optimizer(lr=6e-2)
NUM_STEPS, CHECKPOINT, LEAVES_AT = 12, 5, 8
REASON = "teacher 'a' is away: its node is lost"


class Leaving(ToyTeachers):
    """Two teachers, away before step ``LEAVES_AT`` until they were looked for ``looks`` times."""

    def __init__(self, looks: int = 0, returns: bool = True) -> None:
        super().__init__([tiny_bert(8), tiny_bert(9)])
        self._looks = looks
        self._returns = returns
        self._step: Step | None = None
        self._future: Future[Step] = Future()

    def feed(self, batches: Any, start: int, stop: int, wait: Any = until_done) -> Any:
        for self._step in super().feed(batches, start, stop):
            assert self._step is not None
            self._future = Future()
            if self._step.step != LEAVES_AT or self._looks == 0:
                self._future.set_result(self._step)
            yield wait(self._future, self._away)

    def _away(self) -> str | None:
        if self._future.done():
            return None
        self._looks -= 1
        if self._looks > 0:
            return REASON
        if self._returns:
            assert self._step is not None
            self._future.set_result(self._step)
        else:
            self._future.set_exception(TeacherAway("teacher 'a' was away for 1800 s"))
        return None


class CountingStore(FolderStore):
    def __init__(self, folder: Path, num_ranks: int) -> None:
        super().__init__(folder, num_ranks)
        self.saved: list[int] = []

    def save(self, engine: Any, cursor: Cursor) -> None:
        self.saved.append(cursor.step)
        super().save(engine, cursor)


class Fit:
    """A fit on ranks that are threads; the last one's teacher leaves. Its checkpoints, what was
    announced, and how each rank ended."""

    def __init__(
        self,
        folder: Path,
        num_ranks: int = 1,
        looks: int = 0,
        returns: bool = True,
        stops: bool = False,
        schedule: Any = None,
    ) -> None:
        ranks = Ranks(num_ranks)
        engines = []
        for rank in range(num_ranks):
            module = DistillModule(
                tiny_bert(0), ForwardKL(), UniformMean(), ("a", "b"), NUM_CLASSES
            )
            engines.append(ThreadEngine(module, ranks, rank, OPTIMIZER))
        sources = [Leaving(looks if r == num_ranks - 1 else 0, returns) for r in range(num_ranks)]
        self.stores = [CountingStore(folder, num_ranks) for _ in range(num_ranks)]
        self.announced: list[str | None] = []
        kd = KD(temperature=2, alpha=0.7, **({} if schedule is None else {"schedule": schedule}))

        def rank_main(rank: int) -> BaseException | Cursor:
            try:
                return train(
                    engines[rank],
                    toy_batches(rank=rank, world_size=num_ranks, micro=4),
                    sources[rank],
                    Schedule(NUM_STEPS, OPTIMIZER, kd),
                    self.stores[rank],
                    lambda engine: {"eval.accuracy": 0.5},
                    Selection("eval.accuracy"),
                    TrainingIntervals(100, 100, CHECKPOINT),
                    should_stop=lambda: stops and rank == 0 and bool(self.announced),
                    announce=self.announced.append,
                )
            except Exception as error:
                return error

        with ThreadPoolExecutor(num_ranks) as pool:
            self.ends = list(pool.map(rank_main, range(num_ranks)))
        self.saved = self.stores[0].saved
        self.weights: dict[str, Tensor] = engines[0].module_state()

    def equals(self, other: Fit) -> bool:
        same = (torch.equal(self.weights[name], t) for name, t in other.weights.items())
        return self.weights.keys() == other.weights.keys() and all(same)


@pytest.fixture(scope="module", params=[1, 2], ids=["1-rank", "2-ranks"])
def undisturbed(request: Any, tmp_path_factory: Any) -> tuple[int, Fit]:
    return request.param, Fit(tmp_path_factory.mktemp("undisturbed"), request.param)


def test_an_outage_costs_one_checkpoint_and_changes_no_weight(
    undisturbed: tuple[int, Fit], tmp_path: Path
) -> None:
    num_ranks, expected = undisturbed
    fit = Fit(tmp_path, num_ranks, looks=3)
    assert expected.saved == [5, 10, 12] and expected.announced == []
    assert all(store.saved == [5, LEAVES_AT, 10, 12] for store in fit.stores)
    assert fit.announced == [REASON] + [None] * num_ranks
    assert fit.ends == expected.ends
    assert fit.equals(expected)


def test_a_teacher_that_stays_away_is_a_stop_that_resumes(
    undisturbed: tuple[int, Fit], tmp_path: Path
) -> None:
    num_ranks, expected = undisturbed
    fit = Fit(tmp_path, num_ranks, looks=2, returns=False)
    assert fit.saved == [5, LEAVES_AT]
    *others, last = fit.ends
    assert isinstance(last, TeacherAway) and "1800 s" in str(last)
    assert all(type(error) is Interrupted for error in others)
    resumed = Fit(tmp_path, num_ranks)
    assert resumed.saved == [10, 12] and resumed.equals(expected)


def test_a_teacher_given_up_before_it_counts_as_away_leaves_a_checkpoint_too(
    tmp_path: Path,
) -> None:
    fit = Fit(tmp_path, looks=1, returns=False)
    assert fit.saved == [5, LEAVES_AT] and isinstance(fit.ends[0], TeacherAway)


def test_a_stop_requested_during_an_outage_does_not_wait_for_its_end(
    undisturbed: tuple[int, Fit], tmp_path: Path
) -> None:
    num_ranks, expected = undisturbed
    fit = Fit(tmp_path, num_ranks, looks=10**9, stops=True)
    assert [type(end) for end in fit.ends] == [Interrupted] * num_ranks
    assert fit.saved == [5, LEAVES_AT]
    assert Fit(tmp_path, num_ranks).equals(expected)


def test_the_checkpoint_of_an_outage_keeps_the_losses_of_its_interval(tmp_path: Path) -> None:
    whole = Fit(tmp_path / "whole", schedule=LossRatio())
    Fit(tmp_path / "cut", looks=2, returns=False, schedule=LossRatio())
    resumed = Fit(tmp_path / "cut", schedule=LossRatio())
    assert resumed.equals(whole) and resumed.ends == whole.ends


class Alone:
    """The only rank, which has nobody to agree with."""

    world_size = 1

    def agree(self, value: int) -> int:
        raise AssertionError("a collective")


def test_an_error_of_a_teacher_that_is_not_away_is_raised_as_itself() -> None:
    future: Future[int] = Future()
    future.set_exception(TeacherError("no replica is left"))
    saved: list[int] = []
    recovery = Recovery(Alone(), lambda: saved.append(1))
    with pytest.raises(TeacherError, match="no replica is left"):
        recovery(future, lambda: REASON)
    assert saved == []


def test_a_rank_that_is_alone_agrees_with_nobody() -> None:
    future: Future[int] = Future()
    future.set_result(3)
    assert Recovery(Alone(), lambda: None)(future, lambda: None) == 3


def test_the_reason_is_kept_in_the_folder_while_a_fit_waits(tmp_path: Path) -> None:
    assert outage(tmp_path) is None
    note_away(tmp_path, REASON)
    found = outage(tmp_path)
    assert found is not None and found.reason == REASON
    note_away(tmp_path, None)
    note_away(tmp_path, None)
    assert outage(tmp_path) is None and list(tmp_path.iterdir()) == []


def test_ranks_wait_longer_for_each_other_than_one_for_a_teacher() -> None:
    assert group_timeout(7200.0).total_seconds() > 7200


def test_a_teacher_that_stays_away_is_a_stop_as_after_ctrl_c() -> None:
    error = TeacherAway("x")
    assert error.exit_code == 130
    assert isinstance(error, Interrupted) and isinstance(error, TeacherError)


def test_outside_of_the_loop_who_is_away_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    future: Future[int] = Future()

    def away() -> str:
        threading.Timer(0.3, future.set_result, [7]).start()
        return REASON

    assert until_done(future, away) == 7
    assert [record.getMessage() for record in caplog.records] == [f"{REASON}; waiting for it"]
