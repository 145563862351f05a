"""The teachers of a run: what they are served as, and their processes while they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

from distill.aggregation import Aggregation, Routed, UniformMean
from distill.config import Experiment, Serving
from distill.driver.checks.link_sizes import serving_of_link
from distill.driver.context import Driver
from distill.experts.router import ROUTER
from distill.models.load import weights_fingerprint
from distill.models.tokenizer import tokenizer_fingerprint
from distill.models.vocabulary import SharedTokens
from distill.sampling import Generated
from distill.teachers.backends import backend_class
from distill.teachers.cache import TeacherKey, cache_folder_of, open_cache
from distill.teachers.client import CacheOnlyClient
from distill.teachers.probability import is_pickle
from distill.teachers.served import ServedTeacher
from distill.teachers.setup import TeacherSetup
from distill.training.job import Job
from distill.wording import counted


@contextmanager
def serve_teachers(d: Driver, expert_jobs: list[Job]) -> Iterator[TeacherSetup | None]:
    """The teachers, served; None for an experiment without any."""
    experiment = d.experiment
    if not experiment.has_teachers:
        yield None
        return
    with served_as_actors(d, teachers_of(d, expert_jobs)) as teacher_setup:
        yield teacher_setup


@contextmanager
def served_as_actors(d: Driver, teacher_setup: TeacherSetup) -> Iterator[TeacherSetup]:
    """The same teachers, served."""
    from distill.teachers.replica_pool import RayTeacherPool  # imports ray: only after connect()

    experiment, served = d.experiment, list(teacher_setup.served)
    _open_cache(d, served, d.memory.answers(experiment.cache))
    names = ", ".join(spec.name for spec in served)
    d.progress.say(f"starting {counted(len(served), 'teacher')}: {names}")
    wait_s, transport = experiment.cluster.start_deadline_s, experiment.stream.transport
    with RayTeacherPool(served, wait_s, transport, _requests_at_once(experiment)) as pool:
        d.interrupt.check()
        yield replace(teacher_setup, client=pool.client(experiment.stream))


class ServedTeachers:
    """Teachers that are served until others are needed, and then let go: a context manager."""

    def __init__(
        self, serve: Callable[[TeacherSetup], AbstractContextManager[TeacherSetup]]
    ) -> None:
        self._serve = serve
        self._stack = ExitStack()
        self._served: TeacherSetup | None = None

    def __call__(self, teacher_setup: TeacherSetup) -> TeacherSetup:
        if self._served is None or self._served.served != teacher_setup.served:
            self.close()
            self._served = self._stack.enter_context(self._serve(teacher_setup))
        return self._served

    def close(self) -> None:
        self._served = None
        self._stack.close()

    def __enter__(self) -> ServedTeachers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _requests_at_once(experiment: Experiment) -> int:
    """Of one replica. Two on this machine: while the student waits for a teacher of one thread, a
    second request uses the CPU that the student has left idle. One where replicas also verify or
    generate text, and on a cluster, where others use the CPUs that are not reserved."""
    is_local = experiment.cluster.address is None
    return 2 if is_local and not isinstance(experiment.sampling, Generated) else 1


def teachers_of(d: Driver, expert_jobs: list[Job]) -> TeacherSetup:
    """The experiment's teachers, not yet served."""
    teachers, router = teacher_specs(d, expert_jobs)
    return _teacher_setup(d, teachers, router, d.experiment.aggregation)


def teacher_setup_of_link(d: Driver, link: Job) -> TeacherSetup:
    """A chain's link, which is exported, as the only teacher; not yet served."""
    experiment, folder, shared = d.experiment, str(link.model_folder), None
    serving = serving_of_link(experiment)
    shared = d.plan.task.shared_tokens(d.plan, {link.name: folder}).get(link.name)
    spec = teacher_spec(
        d, link.name, folder, serving, len(d.plan.corpus.label_names), shared=shared
    )
    return _teacher_setup(d, [spec], None, UniformMean())


def _teacher_setup(
    d: Driver, teachers: list[ServedTeacher], router: ServedTeacher | None, aggregation: Aggregation
) -> TeacherSetup:
    served = [*teachers, *([router] if router else [])]
    shared = d.memory.answers(d.experiment.cache)
    return TeacherSetup(
        client=CacheOnlyClient(tuple(spec.name for spec in served)),
        teachers=tuple(teachers),
        router=router,
        aggregation=aggregation,
        stream=d.experiment.stream,
        cache=d.experiment.cache,
        cache_folder=str(shared or d.run.root / "cache"),
        by_content=shared is not None,
    )


def _open_cache(d: Driver, served: list[ServedTeacher], shared: Path | None) -> None:
    """Print, once and here, the messages that ranks would print where nobody reads them.

    ``shared``: the folder of the outputs in the shared memory, which are held from here on.
    """
    keys = {spec.name: spec.key for spec in served if spec.are_outputs_fixed}
    if shared is not None:
        for name, key in keys.items():
            d.memory.hold(cache_folder_of(shared, name, key, by_content=True))
    folder = shared or d.run.root / "cache"
    cache = open_cache(d.experiment.cache, folder, keys, "driver", shared is not None)
    for message in cache.messages:
        d.progress.say(message)
    cache.close()


def _key(d: Driver, folder: str, serving: Serving, weights: str) -> TeacherKey:
    """``weights``: their fingerprint. Its columns that are shared with the student come later."""
    data = d.experiment.data
    has_tokens = d.plan.corpus.features is None and not is_pickle(folder)
    return TeacherKey(
        # The arithmetic decides the output as much as the weights do.
        weights=f"{weights}-{serving.dtype}",
        data=d.plan.task.rows_for_teacher(d.plan, folder).fingerprint,
        tokenizer=tokenizer_fingerprint(folder) if has_tokens else "none",
        wire=serving.wire.name,
        max_length=data.max_length if has_tokens else 0,
        cut=data.cut if has_tokens else "head",
        moe=serving.moe.type,
        pooling=d.plan.task.pooling(folder) if has_tokens else "",
    )


def teacher_spec(
    d: Driver,
    name: str,
    folder: str,
    serving: Serving,
    num_outputs: int,
    adapter: str | None = None,
    shared: SharedTokens | None = None,
    fingerprint: Callable[[str], str] = weights_fingerprint,
) -> ServedTeacher:
    """A teacher as it is served. ``num_outputs``: classes; of the router teachers."""
    task = d.plan.task
    serving = serving.model_copy(update={"wire": task.wire_of(serving)})
    width = task.teacher_width(folder, num_outputs) if shared is None else shared.width
    teacher = ServedTeacher(
        name,
        folder,
        serving,
        width,
        backend=task.backend,
        adapter=adapter,
        columns=d.plan.columns.get(name),
        shared=shared,
    )
    weights = backend_class(teacher.backend).fingerprint(teacher, fingerprint)
    key = _key(d, folder, serving, weights)
    return replace(teacher, key=key if shared is None else replace(key, shared=shared.name))


def teacher_specs(d: Driver, jobs: list[Job]) -> tuple[list[ServedTeacher], ServedTeacher | None]:
    experiment, corpus = d.experiment, d.plan.corpus
    num_labels = len(corpus.label_names)
    fingerprint = cache(weights_fingerprint)  # of a base that many share, once
    shared: dict[str, SharedTokens] = {}

    def spec(
        name: str, folder: str, serving: Serving, num_outputs: int, adapter: str | None = None
    ) -> ServedTeacher:
        return teacher_spec(
            d, name, folder, serving, num_outputs, adapter, shared.get(name), fingerprint
        )

    experts, aggregation = experiment.experts, experiment.aggregation
    given = aggregation.router if isinstance(aggregation, Routed) else None
    if experts is not None:
        folders = {job.name: str(job.model_folder) for job in jobs}
        router = given or folders.pop(ROUTER, None)
        bases = folders if experts.lora is None else dict.fromkeys(folders, experts.base)
        shared.update(d.plan.task.shared_tokens(d.plan, bases))
        if experts.lora is None:
            teachers = [spec(n, f, experts.serving, num_labels) for n, f in folders.items()]
        else:
            base = experts.base
            teachers = [spec(n, base, experts.serving, num_labels, f) for n, f in folders.items()]
        serving = experts.router.serving if experts.router else experts.serving
    else:
        router = given
        folders = {t.name: str(t.path) for t in experiment.teachers}
        shared.update(d.plan.task.shared_tokens(d.plan, folders))
        teachers = [spec(t.name, t.path, t, num_labels, t.adapter) for t in experiment.teachers]
        first = teachers[0].serving
        serving = Serving(num_cpus=first.num_cpus, node_labels=first.node_labels)
    if router is None:
        return teachers, None
    if isinstance(aggregation, Routed) and given is not None:
        serving = serving.model_copy(update={"allow_pickle": aggregation.allow_pickle})
    return teachers, spec(ROUTER, router, serving, len(teachers))
