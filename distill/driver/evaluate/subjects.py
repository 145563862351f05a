"""Models by their paths: an exported student, a model folder, a pickle, or a run's ensemble."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from distill.aggregation import Aggregation, UniformMean
from distill.config import Cluster, Cut, Experiment, KMeans, Serving, Stream
from distill.errors import ConfigError, ModelError
from distill.evaluation.classifiers import (
    Classifier,
    Encode,
    ExpertEnsemble,
    ServedClassifier,
    TokenEncoder,
    encode_features,
    encode_texts,
)
from distill.evaluation.settings import Evaluation
from distill.experts.router import ROUTER
from distill.models.labels import Classes, Outputs, columns_of
from distill.run_folder import RunFolder, configuration_of
from distill.tasks.classification.inputs import read_info
from distill.teachers.backends import open_backends
from distill.teachers.client import TeacherClient
from distill.teachers.local import LocalTeachers
from distill.teachers.probability import is_pickle
from distill.teachers.served import ServedTeacher

LABELS_OPTION = "--teacher-labels"
PREFIX = "teacher/"
"""Of the names under which a run's experts are served."""
MAX_DEPTH = 3
"""Folders between a run and a student in it."""
LONGEST = 512
"""Tokens of a model whose config.json does not have the length of its training."""


@dataclass(frozen=True)
class Part:
    """One model to be served."""

    name: str
    folder: str
    """A model folder, or the pickle of an object with predict_proba."""
    label_names: tuple[str, ...]
    """Of its outputs; once it is matched with a student, the student's, in their order."""
    max_length: int
    cut: Cut = "head"
    num_features: int = 0
    serving: Serving = field(default_factory=Serving)
    columns: tuple[int, ...] | None = None
    """Its output of each of ``label_names``; None: in this order."""

    def teacher(self, place: Mapping[str, float]) -> ServedTeacher:
        """``place``: replicas, CPUs and GPUs, as of Serving."""
        serving = self.serving.model_copy(update=dict(place))
        return ServedTeacher(self.name, self.folder, serving, len(self.label_names))

    def encode(self) -> Encode:
        if self.num_features:
            return encode_features
        if is_pickle(self.folder):
            return encode_texts
        return TokenEncoder(self.folder, self.max_length, self.cut)


@dataclass(frozen=True)
class Subject:
    """A classifier that is one part, or an ensemble of several."""

    name: str
    parts: tuple[Part, ...]
    aggregation: Aggregation | None = None
    router: Part | None = None

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.parts[0].label_names

    @property
    def served(self) -> tuple[Part, ...]:
        return (*self.parts, self.router) if self.router else self.parts

    def classifier(self, client: TeacherClient, num_parallel: int) -> Classifier:
        asked = {
            part.name: ServedClassifier(
                part.name, part.label_names, client, part.encode(), num_parallel, part.columns
            )
            for part in self.served
        }
        if self.aggregation is None:
            return asked[self.parts[0].name]
        experts = {part.name.removeprefix(PREFIX): asked[part.name] for part in self.parts}
        router = asked[self.router.name] if self.router else None
        return ExpertEnsemble(self.name, experts, self.aggregation, router)


def is_run(path: str | Path) -> bool:
    """Whether it is the output of ``distill train``."""
    return (Path(path) / "experiment.json").is_file()


def run_of(path: str | Path) -> Path | None:
    """The run that a student is of: the folder itself, or one that holds its export.

    ``RUN``, ``RUN/student`` and ``RUN/trials/NAME/student`` are of RUN.
    """
    path = Path(path)
    around = [path, *path.absolute().parents[:MAX_DEPTH]]
    return next((f for f in around if is_run(f) and (f / "config.yaml").is_file()), None)


def check_student(path: Path) -> None:
    """Raises ModelError for a path without a student; the message lists what is there."""
    if not path.exists():
        raise ModelError(
            f"there is no folder {path}: give a run (the output of distill train) or an exported "
            "student; models are read only from this machine"
        )
    if not path.is_dir():
        raise ModelError(f"{path} is a file: give a run or an exported student, which are folders")
    if not is_run(path):
        if not (path / "config.json").is_file():
            raise ModelError(
                f"{path} is neither a run (no experiment.json) nor an exported student (no "
                "config.json): give the output of distill train, or a folder of distill export"
            )
    elif not (path / "student").is_dir():
        trials = sorted((path / "trials").glob("*/student"))
        if trials:
            raise ModelError(
                f"{path} is a sweep of {len(trials)} students: give one of them, such as "
                f"{trials[0]}; distill frontier names the best"
            )
        raise ModelError(
            f"{path} has no student yet, its training has not finished: run the same distill train "
            "again, it resumes"
        )


def student_of(path: str | Path, max_length: int | None) -> Subject:
    """``path``: an exported folder, or a run, which stands for its student."""
    folder = Path(path) / "student" if is_run(path) else Path(path)
    part = _part("student", str(folder), False, max_length)
    return Subject("student", (part,))


def teacher_of(
    paths: Sequence[str],
    allow_pickle: bool,
    max_length: int | None,
    labels: Sequence[Mapping[str, str]] = (),
) -> Subject:
    """One model, a run's own ensemble, or the uniform mean of several models.

    ``allow_pickle``: of models; a run's teachers have the permission of its configuration.
    ``labels``: the student's label for labels of each model that are called otherwise; (): none.
    Raises InputError for what cannot be loaded, or cannot be a teacher.
    """
    if len(paths) == 1 and is_run(paths[0]):
        if labels:
            raise ConfigError(
                f"{LABELS_OPTION}: {paths[0]} is a run, whose own teachers[].labels are used: "
                "remove the option"
            )
        return _ensemble_of_run(Path(paths[0]), allow_pickle)
    runs = [path for path in paths if is_run(path)]
    if runs:
        raise ConfigError(
            f"--teacher {runs[0]}: a run is already an ensemble: give only the run, or only models"
        )
    if labels and len(labels) != len(paths):
        raise ConfigError(
            f"{LABELS_OPTION} is given {len(labels)} times, --teacher {len(paths)} times: give one "
            "for each, in their order, {} where there is nothing to map"
        )
    names = [f"teacher-{i}" for i, _ in enumerate(paths, 1)] if len(paths) > 1 else ["teacher"]
    parts = []
    for name, path, own in zip(names, paths, labels or [{}] * len(paths), strict=True):
        part = _part(name, path, allow_pickle, max_length)
        parts.append(replace(part, label_names=_outputs(part, own).renamed()))
    return Subject("teacher", tuple(parts), UniformMean() if len(parts) > 1 else None)


def matched(student: Subject, teacher: Subject) -> Subject:
    """The teacher as it is compared with the student; a pickle reads what the student reads.

    Its outputs are brought into the order of the student's classes, by their names. Raises
    ModelError unless both have the same labels, and read the same.
    """
    own = student.parts[0]
    teacher = replace(teacher, parts=tuple(_in_order(part, own) for part in teacher.parts))
    reads = {0: "text"}.get(own.num_features, f"{own.num_features} features")
    for part in teacher.served:
        if not is_pickle(part.folder) and part.num_features != own.num_features:
            raise ModelError(
                f"{part.folder} does not read {reads} as {own.folder} does: give a teacher that "
                "was trained on the same columns"
            )

    def reading(part: Part) -> Part:
        return replace(part, num_features=own.num_features) if is_pickle(part.folder) else part

    router = None if teacher.router is None else reading(teacher.router)
    return replace(teacher, parts=tuple(map(reading, teacher.parts)), router=router)


def _outputs(part: Part, labels: Mapping[str, str] | None = None) -> Outputs:
    # Teachers of a run have their map in its configuration.
    key = None if part.name.startswith(PREFIX) else LABELS_OPTION
    return Outputs(f"the teacher {part.folder}", part.label_names, key, labels)


def _in_order(part: Part, student: Part) -> Part:
    """With its output of each of the student's classes."""
    classes = Classes(f"the student {student.folder}", student.label_names)
    columns = columns_of(_outputs(part), classes)
    return replace(part, label_names=student.label_names, columns=columns)


def _ensemble_of_run(run: Path, allow_pickle: bool) -> Subject:
    experiment = configuration_of(run)
    aggregation = experiment.aggregation
    if not experiment.has_teachers:
        raise ConfigError(f"--teacher {run}: that run had no teachers: give a model folder")
    found = _models_of_run(run, experiment)
    if aggregation.build(1, 1, 1) is not None:
        models = " ".join(f"--teacher {path}" for _, path, _ in found)
        raise ConfigError(
            f"--teacher {run}: its aggregation.type {aggregation.type} computes its weights from "
            "hidden states of the run's student, which distill evaluate does not have: compare "
            f"with the uniform mean of its teachers, {models}"
        )
    read_as = {"max_length": experiment.data.max_length, "cut": experiment.data.cut}
    parts = [replace(_part(f"{PREFIX}{n}", path, pickles), **read_as) for n, path, pickles in found]
    parts = [_in_run(part, experiment) for part in parts]
    router = None
    if aggregation.needs_router():
        folder = getattr(aggregation, "router", None) or str(run / "experts" / ROUTER / "model")
        pickles = allow_pickle or getattr(aggregation, "allow_pickle", False)
        router = replace(_part(f"{PREFIX}router", folder, pickles), **read_as)
        teachers = Classes(
            f"the run {run}",
            tuple(name for name, _, _ in found),
            is_order_given=bool(experiment.teachers),
        )
        chooses = Outputs(f"the router {folder}", router.label_names)
        columns = columns_of(chooses, teachers)
        router = replace(router, label_names=teachers.names, columns=columns)
    return Subject(
        f"the teachers of {run.name} ({aggregation.type})", tuple(parts), aggregation, router
    )


def _in_run(part: Part, experiment: Experiment) -> Part:
    """Its outputs under the labels of the run's data, as far as its configuration has them."""
    own = [t.labels for t in experiment.teachers if f"{PREFIX}{t.name}" == part.name]
    outputs = _outputs(part, own[0] if own else None)
    order = experiment.data.labels
    if order is None:
        return replace(part, label_names=outputs.renamed())
    columns = columns_of(outputs, Classes("data.labels", order, is_order_given=True))
    if columns is None:
        return replace(part, label_names=order)
    return replace(part, label_names=tuple(order[columns.index(j)] for j in range(len(order))))


def _models_of_run(run: Path, experiment: Experiment) -> list[tuple[str, str, bool]]:
    """Name, path and whether it may be a pickle, of each teacher; in the order of the training."""
    if experiment.teachers:
        return [(t.name, t.path, t.allow_pickle) for t in experiment.teachers]
    folders = [p for p in (run / "experts").iterdir() if p.is_dir() and p.name != ROUTER]
    written = RunFolder(run).expert_names()
    names = {written.get(p.name, p.name): str(p / "model") for p in folders}
    for name, path in names.items():
        if not Path(path).is_dir():
            raise ModelError(
                f"{run} has no model for its expert {name!r} at {path}: finish that run, or copy "
                "its whole folder"
            )
    ordered = sorted(names)  # as domains are: CWE121 comes before CWE78
    if experiment.experts is not None and isinstance(experiment.experts.partition, KMeans):
        ordered.sort(key=lambda name: int(name.rpartition("-")[2]))  # cluster-10 after cluster-9
    return [(name, names[name], False) for name in ordered]


def _part(name: str, path: str, allow_pickle: bool, max_length: int | None = None) -> Part:
    info = read_info(path, allow_pickle)
    if not info.has_classifier_head:
        raise ModelError(f"{path} has no classification head: give an exported student")
    trained = info.reading.max_length if info.reading else min(info.max_positions, LONGEST)
    length = max_length or trained
    if length > info.max_positions:
        raise ConfigError(
            f"--max-length {length} is longer than the {info.max_positions} positions of {path}: "
            "lower it"
        )
    return Part(
        name,
        path,
        info.label_names,
        length,
        info.reading.cut if info.reading else "head",
        info.num_features,
        Serving(allow_pickle=allow_pickle),
    )


def _shares(num_copies: int, settings: Evaluation) -> dict[str, float]:
    """What each copy may hold of Ray's CPUs or GPUs, so that all of them fit at once."""
    import ray

    have = ray.cluster_resources()
    kind, most = ("GPU", settings.num_gpus) if settings.on_device == "cuda" else ("CPU", 1.0)
    if not have.get(kind):
        raise ConfigError(f"num_workers {settings.num_workers}: Ray has no {kind}: set device=cpu")
    share = min(most, math.floor(have[kind] / num_copies * 100) / 100)
    if not share:
        raise ConfigError(
            f"num_workers {settings.num_workers}: {num_copies} copies of models are too many for "
            f"{have[kind]:g} {kind}s: lower it"
        )
    return {"num_cpus": 0.0, "num_gpus": share} if kind == "GPU" else {"num_cpus": share}


@contextmanager
def served(subjects: Sequence[Subject], settings: Evaluation) -> Iterator[list[Classifier]]:
    """The subjects' classifiers, in this process (``num_workers`` 0) or on Ray."""
    parts = [part for subject in subjects for part in subject.served]
    num_workers = settings.num_workers
    if not num_workers:
        place = {"num_gpus": 1.0 if settings.on_device == "cuda" else 0.0}
        local = LocalTeachers(open_backends([part.teacher(place) for part in parts]))
        yield [subject.classifier(local, 1) for subject in subjects]
        return
    from distill.cluster.connect import connect

    with connect(Cluster()):
        from distill.teachers.replica_pool import (
            RayTeacherPool,  # imports ray: only after connect()
        )

        copies = {"replicas": num_workers} | _shares(len(parts) * num_workers, settings)
        with RayTeacherPool([part.teacher(copies) for part in parts]) as pool:
            client = pool.client(Stream())
            # Twice as many requests as copies: one is computed while the next is unpacked.
            yield [subject.classifier(client, 2 * num_workers) for subject in subjects]
