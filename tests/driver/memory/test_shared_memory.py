"""Fits and outputs in a folder that runs share: found again, bit-identical, within its limit."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.config import Cache, Optimizer, Student, parse
from distill.config.memory import SharedMemory, check_memory
from distill.driver.memory.content import content_key
from distill.driver.memory.entries import Entry, entries
from distill.driver.memory.store import KEPT, Memory, NoMemory, open_memory
from distill.errors import ConfigError
from distill.run_folder import identity
from distill.teachers.cache import cache_folder_of
from distill.teachers.client import CacheOnlyClient
from distill.training.fit import fit, fit_and_save, is_done, load_best
from distill.training.job import Job
from tests.toys import toy_experiment
from tests.toys_memory import table_job, taught_job


@pytest.fixture
def payloads() -> list[str]:
    return []


@pytest.fixture
def memory(tmp_path: Path, payloads: list[str]) -> Memory:
    return opened(tmp_path, payloads)


def opened(root: Path, payloads: list[str], limit_mb: float = 10) -> Memory:
    return Memory(SharedMemory(path=str(root / "memory"), limit_mb=limit_mb), payloads.append)


def kept(memory: Memory, job: Job) -> Entry:
    """Train and keep; the entry."""
    memory.restore(job)
    fit(job)
    memory.keep(job)
    return entry_of(memory, job)


def entry_of(memory: Memory, job: Job) -> Entry:
    return Entry(memory._root / "fits" / content_key(job))


def weights(job: Job) -> dict[str, torch.Tensor]:
    return load_best(job).state_dict()


def test_an_equal_fit_is_found_and_has_the_same_bits(
    tmp_path: Path, memory: Memory, payloads: list[str]
) -> None:
    first = table_job(tmp_path, "first", name="one")
    kept(memory, first)
    second = table_job(tmp_path, "second", name="two")
    assert memory.restore(second) and is_done(second)
    assert payloads == ["two: found in the shared memory, not trained again"]
    fit_and_save(second)  # only exports
    trained = table_job(tmp_path, "trained")
    fit(trained)
    for name, tensor in weights(trained).items():
        assert torch.equal(weights(second)[name], tensor)
    for name in KEPT:
        path = Path(second.folder) / name
        assert not path.exists() or path.read_bytes() == (tmp_path / "first" / name).read_bytes()
    assert (second.model_folder / "README.md").read_text().count("# two") == 1
    assert memory.metrics() == {
        "memory.students.hits": 1,
        "memory.students.accesses": 2,
        "memory.answers.hits": 0,
        "memory.answers.accesses": 0,
    }


def test_a_capped_student_keeps_its_shape(tmp_path: Path, memory: Memory) -> None:
    jobs = [table_job(tmp_path, name) for name in ("first", "second")]
    capped = Student(size_mb=0.01, dropout=0.0)
    first, second = (
        replace(job, model=replace(job.model, student=capped))  # type: ignore[type-var]
        for job in jobs
    )
    kept(memory, first)
    assert memory.restore(second)
    assert (tmp_path / "second/shape.json").read_text() == (
        tmp_path / "first/shape.json"
    ).read_text()
    assert weights(second).keys() == weights(first).keys()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"optimizer": Optimizer(lr=2e-2)},
        {"train_rows": range(4)},
        {"num_steps": 3},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_fit_is_not_taken_for_it(
    tmp_path: Path, memory: Memory, change: dict[str, Any]
) -> None:
    kept(memory, table_job(tmp_path, "first"))
    other = table_job(tmp_path, "second", **change)
    assert not memory.restore(other) and not is_done(other)


def test_folders_with_work_of_their_own_are_not_touched(tmp_path: Path, memory: Memory) -> None:
    kept(memory, table_job(tmp_path, "first"))
    begun = table_job(tmp_path, "begun")
    (tmp_path / "begun/checkpoints/step-00000001").mkdir(parents=True)
    assert not memory.restore(begun)
    assert [p.name for p in (tmp_path / "begun").iterdir()] == ["checkpoints"]
    done = table_job(tmp_path, "done")
    (tmp_path / "done").mkdir()
    (tmp_path / "done/done.json").write_text("own")
    assert not memory.restore(done)
    assert (tmp_path / "done/done.json").read_text() == "own"
    # Neither was looked for.
    assert memory.metrics()["memory.students.accesses"] == 1


def test_only_what_was_begun_as_this_job_is_kept(tmp_path: Path, memory: Memory) -> None:
    """A resumed run may train on other ranks, or find other weights in a folder."""
    before = table_job(tmp_path, "before")
    fit(before)  # without the memory
    memory.keep(before)
    begun = table_job(tmp_path, "begun")
    memory.restore(begun)
    fit(begun)
    resumed = replace(begun, trainer=begun.trainer.model_copy(update={"num_workers": 2}))
    memory.keep(resumed)
    assert entries(tmp_path / "memory/fits") == []
    memory.keep(begun)
    assert len(entries(tmp_path / "memory/fits")) == 1


def test_a_job_is_looked_up_once(tmp_path: Path, memory: Memory) -> None:
    job = table_job(tmp_path)
    assert not memory.restore(job) and not memory.restore(job)
    assert memory.metrics()["memory.students.accesses"] == 1


def test_an_unfinished_fit_is_not_kept(tmp_path: Path, memory: Memory) -> None:
    job = table_job(tmp_path)
    memory.restore(job)
    memory.keep(job)
    assert entries(tmp_path / "memory/fits") == []


def spoil(entry: Entry) -> None:
    """As a disk would: of the entry alone, which shares its weights with a run."""
    path = entry.folder / "best.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()
    path.write_bytes(content)


def truncate(entry: Entry) -> None:
    (entry.folder / "manifest.json").write_text("{")


def lose(entry: Entry) -> None:
    (entry.folder / "done.json").unlink()


def smuggle(entry: Entry) -> None:
    """A manifest that would place a file elsewhere."""
    manifest = json.loads((entry.folder / "manifest.json").read_text())
    manifest["files"]["../outside"] = manifest["files"]["done.json"]
    (entry.folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("damage", [spoil, truncate, lose, smuggle])
def test_a_damaged_entry_is_removed_and_the_fit_trained_again(
    tmp_path: Path, memory: Memory, payloads: list[str], damage: Callable[[Entry], None]
) -> None:
    entry = kept(memory, table_job(tmp_path, "first"))
    damage(entry)
    second = table_job(tmp_path, "second")
    assert not memory.restore(second)
    assert not is_done(second) and not entry.folder.exists()
    assert len(payloads) == 1 and payloads[0].startswith(
        "student: its fit in the shared memory cannot be used ("
    )
    assert kept(memory, second).folder.exists()
    assert memory.restore(table_job(tmp_path, "third"))


def test_two_runs_may_keep_the_same_fit(
    tmp_path: Path, memory: Memory, payloads: list[str]
) -> None:
    job = table_job(tmp_path)
    entry = kept(memory, job)
    made = (entry.folder / "manifest.json").read_text()
    memory._write(job, entry.folder)  # as a run that looked before the first had finished
    assert (entry.folder / "manifest.json").read_text() == made
    assert entries(tmp_path / "memory/fits") == [entry] and payloads == []


def test_what_a_killed_run_was_writing_is_removed(tmp_path: Path, payloads: list[str]) -> None:
    building = Entry(tmp_path / "memory/fits/.building-1")
    lock = building.create()
    opened(tmp_path, payloads)
    assert building.folder.exists()  # its writer is alive
    os.close(lock)
    opened(tmp_path, payloads)
    assert not building.folder.exists()


# ---- the limit


def of_age(entry: Entry, used: float, num_bytes: int) -> Entry:
    """An entry of this size that was last used then."""
    (entry.folder / "used").write_text(str(used))
    rest = num_bytes - entry.num_bytes
    (entry.folder / "filler").write_bytes(bytes(rest))
    return entry


def made(root: Path, name: str, used: float, num_bytes: int = 400_000) -> Entry:
    entry = Entry(root / "memory/fits" / name)
    os.close(entry.create())
    (entry.folder / "manifest.json").write_text(json.dumps({"job": name}))
    return of_age(entry, used, num_bytes)


def test_the_least_recently_used_are_removed(tmp_path: Path, payloads: list[str]) -> None:
    middle, old, new = made(tmp_path, "b", 2), made(tmp_path, "a", 1), made(tmp_path, "c", 3)
    opened(tmp_path, payloads, limit_mb=1)  # of 1.2
    assert [e.folder.exists() for e in (old, middle, new)] == [False, True, True]
    assert payloads == [
        "shared memory: removed a (0.4 MB): least recently used, above memory.limit_mb 1"
    ]


def test_a_use_makes_an_entry_recent(tmp_path: Path, memory: Memory, payloads: list[str]) -> None:
    used = of_age(kept(memory, table_job(tmp_path, "first")), 1, 400_000)
    other = made(tmp_path, "other", 2)
    assert memory.restore(table_job(tmp_path, "second"))
    opened(tmp_path, payloads, limit_mb=0.5)
    assert used.folder.exists() and not other.folder.exists()


def test_what_is_in_use_is_not_removed(tmp_path: Path, payloads: list[str]) -> None:
    old, new = made(tmp_path, "a", 1), made(tmp_path, "b", 2)
    lock = old.share()
    assert lock is not None
    opened(tmp_path, payloads, limit_mb=0.5)
    assert old.folder.exists() and not new.folder.exists()
    opened(tmp_path, payloads, limit_mb=0.1)
    assert old.folder.exists()
    assert payloads[-1] == (
        "shared memory: 0.4 MB are in use by other runs, above memory.limit_mb 0.1"
    )
    os.close(lock)
    opened(tmp_path, payloads, limit_mb=0.1)
    assert not old.folder.exists()
    assert payloads[-1].endswith("it alone is larger than memory.limit_mb 0.1")


def test_a_fit_that_is_larger_than_the_limit_is_not_kept(
    tmp_path: Path, payloads: list[str]
) -> None:
    memory = opened(tmp_path, payloads, limit_mb=1e-4)
    kept(memory, table_job(tmp_path))
    assert entries(tmp_path / "memory/fits") == []
    assert len(payloads) == 1
    assert payloads[0].startswith(
        "student is not kept in the shared memory: it has 0.0 MB, more than"
    )


# ---- teachers' outputs


def test_outputs_are_found_by_a_student_of_another_size_and_another_name_of_the_teacher(
    tmp_path: Path, memory: Memory, payloads: list[str]
) -> None:
    answers = memory.answers(Cache())
    assert answers is not None
    first = taught_job(tmp_path, "first", answers)
    kept(memory, first)
    num_rows = len(first.train_rows)
    found = memory.metrics()
    # Two epochs: the second one is read from the cache.
    assert found["memory.answers.accesses"] == 2 * num_rows
    assert found["memory.answers.hits"] == num_rows

    second = taught_job(tmp_path, "second", answers, teacher="the same")
    assert second.teacher_setup is not None
    cache_only = replace(second.teacher_setup, client=CacheOnlyClient(("the same",)))
    larger = replace(second.model, student=Student(hidden=16, dropout=0.0))  # type: ignore[type-var]
    kept(memory, replace(second, teacher_setup=cache_only, model=larger))
    assert memory.metrics()["memory.answers.hits"] == 3 * num_rows
    memory.close()
    assert payloads == [
        f"shared memory: 0 of 2 fits found, {3 * num_rows} of {4 * num_rows} teacher outputs read "
        "from the cache"
    ]


def test_a_fit_that_is_found_queries_nobody(tmp_path: Path, memory: Memory) -> None:
    answers = memory.answers(Cache())
    kept(memory, taught_job(tmp_path, "first", answers))
    before = memory.metrics()["memory.answers.accesses"]
    second = taught_job(tmp_path, "second", answers)
    assert memory.restore(second)
    memory.keep(second)
    assert memory.metrics()["memory.answers.accesses"] == before


def test_outputs_in_use_are_kept_until_the_run_ends(tmp_path: Path, payloads: list[str]) -> None:
    memory = opened(tmp_path, payloads, limit_mb=1e-3)
    answers = memory.answers(Cache())
    assert answers is not None
    job = taught_job(tmp_path, "first", answers)
    assert job.teacher_setup is not None
    domain_teacher = cache_folder_of(
        answers, "rule", job.teacher_setup.teachers[0].key, by_content=True
    )
    memory.hold(domain_teacher)
    fit(job)
    opened(tmp_path, payloads, limit_mb=1e-3)  # another run
    assert list(domain_teacher.glob("segment-*.arrow"))
    memory.close()
    assert not domain_teacher.exists()
    assert payloads[-1].startswith("shared memory: removed outputs of rule (")


def test_other_caches_are_left_where_they_are(memory: Memory) -> None:
    assert memory.answers(Cache(path="elsewhere")) is None
    assert memory.answers(Cache(type="memory")) is None
    assert memory.answers(Cache(type="none")) is None


# ---- settings


def test_it_is_off_by_default_and_no_part_of_the_identity(tmp_path: Path) -> None:
    raw = toy_experiment(tmp_path)
    plain = parse(raw)
    assert isinstance(open_memory(plain.memory, print), NoMemory)
    shared = parse(raw | {"memory": {"path": str(tmp_path / "memory"), "limit_mb": 5}})
    assert identity(shared, "rows") == identity(plain, "rows")


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"memory.path .*/file/x cannot be written .*\.path=null"):
        check_memory(SharedMemory(path=str(tmp_path / "file" / "x")))
    check_memory(SharedMemory(path=str(tmp_path / "new" / "folder")))
    check_memory(SharedMemory())


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_of_nothing_is_refused(tmp_path: Path, limit: int) -> None:
    with pytest.raises(ConfigError, match=r"memory\.limit_mb"):
        parse(toy_experiment(tmp_path) | {"memory": {"path": "x", "limit_mb": limit}})


def test_a_memory_that_cannot_be_written_does_not_end_a_run(
    tmp_path: Path, memory: Memory, payloads: list[str]
) -> None:
    job = table_job(tmp_path)
    memory.restore(job)
    shutil.rmtree(tmp_path / "memory", ignore_errors=True)
    (tmp_path / "memory").write_text("now a file")
    fit(job)
    memory.keep(job)
    assert len(payloads) == 1 and payloads[0].startswith(
        "student could not be kept in the shared memory"
    )
