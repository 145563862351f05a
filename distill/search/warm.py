"""Beginning a sweep with what past runs suggest: HPM-KD's configuration manager and shared memory.

arXiv 2512.09886, components 1 and 6; the maths is in memory.py, the reading in tracking/memory.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from distill.evaluation.predict import predict
from distill.evaluation.split import Split
from distill.fit import Job, build_module
from distill.module import DistillModule
from distill.pipeline import Driver, run_tasks
from distill.search.ledger import Entry
from distill.search.memory import KEYS, Memory, Proposal, judge, refinements
from distill.search.settings import Search
from distill.search.space import Value, fitted, middle
from distill.search.trial import Sweep
from distill.task import meta_of
from distill.tracking.memory import experiences

NUM_REFINEMENTS = 4
BRIEF = 0.25
"""Share of a trial's steps that proposal and defaults are compared on."""


def warm_start(d: Driver, search: Search, sweep: Sweep) -> list[dict[str, Value]]:
    """Values to try before the sampler's own: a proposal, refined if its brief run is poor.

    Decided once: a resumed sweep finds the decision, and its reasons, in ``warm_start.json``.
    """
    kept = d.run.root / "warm_start.json"
    if kept.exists():
        return json.loads(kept.read_text(encoding="utf-8"))["first"]
    flat = _values_of(d, search)
    keys = [key for key in KEYS if key in search.space]
    defaults = {key: float(flat[key]) for key in keys}
    past = experiences(d.tracker.uri, keys, search.ordered_goals[0])
    d.progress.say(f"configuration memory: {len(past)} past runs")
    seed = d.experiment.seed
    proposal = Memory(past).propose(_meta(d, sweep, flat), defaults, seed)
    told: dict[str, object] = {"proposed": proposal.values, "why": proposal.why}
    told["neighbours"] = [asdict(n) for n in proposal.neighbours]
    first: list[dict[str, Value]] = []
    if proposal.model != "defaults":
        first = [_moved(flat, proposal.values, search)]
        verdict = judge(*_brief(d, sweep, {"proposal": first[0], "defaults": flat}))
        told["brief"] = verdict.why
        if verdict.is_poor:
            near = refinements(proposal, NUM_REFINEMENTS, seed)
            first += [_moved(flat, values, search) for values in near]
    kept.write_text(json.dumps(told | {"first": first}, indent=1), encoding="utf-8")
    _say(d, proposal, str(told.get("brief", "")), len(first))
    d.tracker.artifact(kept)
    return first


def _say(d: Driver, proposal: Proposal, verdict: str, num_first: int) -> None:
    values = ", ".join(f"{key}={value:.4g}" for key, value in proposal.values.items())
    d.progress.say(f"configuration memory proposes {values}: {proposal.why}")
    if verdict:
        d.progress.say(f"{verdict}; the first {num_first} trials use it")
    d.tracker.tags({"distill.warm_start": f"{values}: {proposal.why}"})


def _values_of(d: Driver, search: Search) -> dict[str, Value]:
    """The experiment's own values of the searched keys; the middle of what it leaves open."""
    dumped = d.experiment.model_dump(mode="json")

    def own(key: str) -> Value:
        node: object = dumped
        for part in key.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        domain = search.space[key]
        if not isinstance(node, bool | int | float | str):
            return middle(domain)
        return fitted(node, domain)

    return {key: own(key) for key in search.space}


def _moved(
    flat: Mapping[str, Value], values: Mapping[str, float], search: Search
) -> dict[str, Value]:
    """The experiment's values with these instead, inside their domains."""
    return {**flat, **{key: fitted(value, search.space[key]) for key, value in values.items()}}


def _job(sweep: Sweep, name: str, values: dict[str, Value]) -> Job:
    return sweep.job(Entry(Path(sweep.folder) / "brief" / name, values, "running", {}))


def _meta(d: Driver, sweep: Sweep, values: dict[str, Value]) -> dict[str, float]:
    """Of the experiment's own student, before anything is trained."""
    job = _job(sweep, "defaults", values)
    module = build_module(job).eval()
    metrics = {"student.params": float(sum(p.numel() for p in module.student.parameters()))}
    if job.guidance is not None:
        validation = Split(d.plan.corpus, "validation")
        assert isinstance(module, DistillModule)
        with job.guidance.open(job.data, "sweep", validation.num_classes) as stream:
            seen = predict(module, validation.batches(job.data.open()), stream)
        assert seen.teacher_R is not None
        metrics["eval.teacher_accuracy"] = validation.accuracy(seen.teacher_R)
    return meta_of(d.plan.corpus, metrics, sweep.teacher_params)


def _brief(d: Driver, sweep: Sweep, tried: dict[str, dict[str, Value]]) -> list[float]:
    """The best validation metric of each, after a quarter of the steps."""
    jobs = [_job(sweep, name, values) for name, values in tried.items()]
    jobs = [
        replace(job, name=f"brief-{name}", num_steps=max(1, round(BRIEF * job.total_steps)))
        for job, name in zip(jobs, tried, strict=True)
    ]
    run_tasks(d, jobs)
    done = [json.loads((Path(job.folder) / "done.json").read_text()) for job in jobs]
    return [float(told["best"]) for told in done]
