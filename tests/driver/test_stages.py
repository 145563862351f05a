"""The graph of a run: what needs what, what is done, and how it is shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distill.driver.chain_links import ChainRecord
from distill.driver.run_jobs import jobs_of
from distill.driver.stages import Stage, stages_of, state_of, tree
from distill.tasks.chained import Decision
from distill.tasks.jobs import student_job
from distill.training.job import Job
from tests.driver.test_chain_links import local, teacher  # noqa: F401 (a fixture)
from tests.driver.test_task_stages import Run
from tests.toys import DOMAINS
from tests.toys_tasks import Scripted, write_results

FITS = tuple(f"fit:{name}" for name in DOMAINS)
LOSSES = tuple(f"losses:{name}" for name in DOMAINS)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stages")


def needs(stages: list[Stage]) -> dict[str, tuple[str, ...]]:
    return {stage.name: stage.needs for stage in stages}


def test_experts_then_router_then_student_then_evaluation(root: Path, tmp_path: Path) -> None:
    run = Run(root, tmp_path, Scripted(4))
    stages = stages_of(run.d.plan, run.jobs)
    assert needs(stages) == {
        **dict.fromkeys(FITS, ()),
        **{f"losses:{name}": (f"fit:{name}",) for name in DOMAINS},
        "fit:router": (*FITS, *LOSSES),
        "fit:alone": (),
        "student": (*FITS, *LOSSES, "fit:router"),
        "evaluation": ("student", "fit:alone"),
    }
    assert stages[-2].teachers == DOMAINS
    assert needs(stages_of(run.d.plan)) == needs(stages), "the same names without jobs"
    names = [stage.name for stage in stages]
    for stage in stages:
        assert all(names.index(name) < names.index(stage.name) for name in stage.needs)


def test_a_router_of_the_partition_is_trained_with_the_experts(root: Path, tmp_path: Path) -> None:
    run = Run(root, tmp_path, Scripted(4), targets="partition")
    found = needs(stages_of(run.d.plan, run.jobs))
    assert found["fit:router"] == () and not set(LOSSES) & found.keys()
    assert found["student"] == (*FITS, "fit:router")


def test_links_come_one_after_the_other(tmp_path: Path, teacher: Path) -> None:  # noqa: F811
    chain = local(tmp_path, teacher)
    stages = [stage for stage in stages_of(chain.plan) if stage.kind != "baseline"]
    assert needs(stages) == {
        "link 1": (),
        "link 2": ("link 1",),
        "student": ("link 2",),
        "evaluation": ("student", "fit:alone"),
    }
    assert [stage.teachers for stage in stages] == [("big",), ("link 1",), ("link 2",), ("big",)]


def test_the_tree_shows_which_links_are_kept(tmp_path: Path, teacher: Path) -> None:  # noqa: F811
    chain = local(tmp_path, teacher)
    plan, run = chain.plan, chain.d.run
    jobs = jobs_of(chain.d, student_job(plan.experiment, plan.corpus, "", run.fit, run.stop))
    for job in jobs.links:
        Path(job.folder).mkdir(parents=True)
        (Path(job.folder) / "done.json").write_text("{}")

    def links() -> list[str]:
        found = tree([s for s in stages_of(plan, jobs) if s.kind != "baseline"])
        return [line.strip() for line in found if "link" in line]

    assert links() == ["link 2 (done)", "link 1 (done)"]
    record = ChainRecord("eval.accuracy", 0.9, (Decision("link 1", 0.5, -0.4, False, "worse"),))
    record.write(run.links / "chain.json")
    assert links()[1] == "link 1 (dropped)"
    replace(record, links=(replace(record.links[0], is_kept=True),)).write(run.links / "chain.json")
    assert links()[1] == "link 1 (kept)"


def test_a_warm_start_comes_between_teachers_and_student(root: Path, tmp_path: Path) -> None:
    run = Run(root, tmp_path, Scripted(4), targets="partition", warm_start=True)
    stages = stages_of(run.d.plan, run.jobs)
    assert needs(stages)["warm start"] == (*FITS, "fit:router")
    assert needs(stages)["student"] == ("warm start",)
    (warm,) = [stage for stage in stages if stage.kind == "warm start"]
    assert not warm.is_done
    (tmp_path / "warm_start.json").touch()
    assert warm.is_done


def test_what_is_in_the_run_folder_is_done(root: Path, tmp_path: Path) -> None:
    run = Run(root, tmp_path, Scripted(4))

    def done() -> set[str]:
        return {stage.name for stage in stages_of(run.d.plan, run.jobs) if stage.is_done}

    assert done() == set()
    write_results(run.jobs.experts[0])
    assert done() == {FITS[0], LOSSES[0]}
    baseline = run.jobs.baselines[0]
    write_results(baseline)
    assert "fit:alone" in done()
    (Path(baseline.folder) / "predictions.npy").unlink()  # trained, and not tested
    assert "fit:alone" not in done()
    assert run.jobs.router is not None
    write_results(run.jobs.router)
    assert done() == {FITS[0], *LOSSES, "fit:router"}, "a trained router needs no losses"


def test_the_tree_shows_below_each_stage_what_it_needs(root: Path, tmp_path: Path) -> None:
    run = Run(root, tmp_path, Scripted(4), baselines=["one", "two"])
    assert tree(stages_of(run.d.plan)) == [
        "stages, each with those that it needs below it:",
        "  evaluation",
        "    student",
        "      router",
        f"        3 experts: {', '.join(DOMAINS)}",
        "    2 baselines: one, two",
    ]
    for job in run.jobs.experts[:2]:
        write_results(job)
    (Path(run.jobs.experts[2].folder) / "checkpoints/step-00001200").mkdir(parents=True)
    lines = tree(stages_of(run.d.plan, run.jobs))
    assert lines[4:6] == [
        f"        2 experts: {DOMAINS[0]}, {DOMAINS[1]} (done)",
        f"        expert: {DOMAINS[2]} (step 1,200)",
    ]


def test_the_tree_fits_80_columns() -> None:
    names = [f"{number} with a name that is long" for number in range(20)]
    experts = [Stage(f"fit:{name}", "expert", name) for name in names]
    student = Stage("student", "student", "student", tuple(stage.name for stage in experts))
    _, first, second = tree([*experts, student])
    assert first == "  student"
    assert second == f"    20 experts: {names[0]}, {names[1]}, …" and len(second) <= 80
    assert tree([student, replace(student, name="evaluation")]) == []


def test_a_stage_without_a_job_has_no_state() -> None:
    assert state_of(Stage("evaluation", "evaluation", "")) == ""
    job: Any = SimpleNamespace(folder="none")

    def never(job: Job) -> bool:
        return False

    stage = Stage("student", "student", "student", job=job, has_ended=never)
    assert state_of(stage) == ""
    assert state_of(replace(stage, has_ended=lambda job: True)) == "done"
