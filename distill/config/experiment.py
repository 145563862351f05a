"""One YAML file is one experiment: all sections together, how a file is read, and what sections
require of each other. Every key has its type, default and meaning in the class of its section.

Load with :func:`load`; unknown keys, wrong types and values out of range are refused with the key,
the value and the fix. Nothing here reads a data file or a model, or starts a process: see
driver/checks/check.py. Nor is torch imported: a configuration is refused at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from distill.aggregation import Aggregation, UniformMean
from distill.config.baselines import Baseline
from distill.config.chain import Chain, is_link_name
from distill.config.cluster import Cluster
from distill.config.data import Data
from distill.config.explain import explain, wrong_word
from distill.config.keys_of_tasks import misfits
from distill.config.memory import SharedMemory
from distill.config.overrides import assign, parse_override
from distill.config.sampling import DatasetSampling, Sampling
from distill.config.search import Search
from distill.config.stream import Cache, Stream
from distill.config.student import Student
from distill.config.tasks import TASKS
from distill.config.teachers import ByColumn, Experts, Teacher
from distill.config.tracking import Tracking
from distill.config.training import KD, Generation, Optimizer, Trainer
from distill.config.yaml_text import read_yaml, yaml_fault
from distill.errors import ConfigError
from distill.names import confusable
from distill.objectives import ForwardKL, Objective
from distill.variant import Only, Section


class Experiment(Section):
    """The whole configuration file."""

    task: str = Field(default="classification", json_schema_extra={"enum": [*TASKS]})
    """Type of teachers and student: classifiers (of text or features), or causal language
    models."""
    data: Data
    """The data and how it is read."""
    output: str
    """Folder of the run: checkpoints, metrics, cache, and the exported student in ``student/``.
    Default: ``runs/`` and the name of the configuration file. The same command with the same folder
    resumes."""
    experts: Experts | None = None
    """Experts that are trained first and used as teachers; null: ``teachers`` lists existing
    models."""
    teachers: tuple[Teacher, ...] = ()
    """Existing models that are used as teachers; (): the trained ``experts``, or none."""
    aggregation: Aggregation = UniformMean()
    """How the outputs of several teachers are combined into one target, and which teachers each row
    is sent to."""
    objective: Objective = ForwardKL()
    """The divergence between the target and the student, or a list of several, each with its
    ``weight``: their sum, each with its own c(T)."""
    kd: KD = KD()
    """Temperature and weight of the distillation loss."""
    student: Student = Student()
    """The student: its family, size and initial weights."""
    chain: Chain | None = None
    """Intermediate students between teachers and student; null: none."""
    sampling: Sampling = DatasetSampling()
    """Language models: source of the text that the student is trained on."""
    optimizer: Optimizer = Optimizer()
    """AdamW of the student."""
    trainer: Trainer = Trainer()
    """How the student is trained."""
    generation: Generation = Generation()
    """Language models: generated text in the evaluation."""
    stream: Stream = Stream()
    """Requests between the student and its teachers."""
    cache: Cache = Cache()
    """Where teachers' outputs are cached."""
    memory: SharedMemory = SharedMemory()
    """Shared memory: teachers' outputs and finished fits that later experiments find again."""
    baselines: tuple[Baseline, ...] = ()
    """Models that the distilled student is compared with in the final table."""
    warm_start: Annotated[
        bool,
        Only(
            "classification",
            way_out="remove it, or run distill sweep to search for values",
        ),
    ] = False
    """Classifiers with teachers: start from past runs in MLflow. They propose ``kd.temperature``,
    ``kd.alpha``, ``optimizer.lr``, ``optimizer.weight_decay`` and, with a chain, ``chain.epsilon``;
    brief runs compare the proposal with the values in this file. ``distill sweep`` ignores it: see
    ``search.warm_start``."""
    search: Search | None = None
    """What ``distill sweep`` varies; ``distill train`` ignores it."""
    tracking: Tracking = Tracking()
    """What is logged to MLflow."""
    cluster: Cluster = Cluster()
    """Where Ray runs."""
    seed: int = Field(default=0, ge=0)
    """Seed of weights, batches, splits by hash and samples: the same seed gives the same run."""

    @field_validator("task", mode="before")
    @classmethod
    def _is_a_task(cls, task: object) -> object:
        if task not in [*TASKS]:  # whatever its type
            raise ValueError(wrong_word("task", TASKS, task))
        return task

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        _reject_confusable("teachers", [t.name for t in self.teachers])
        if self.experts and self.teachers:
            raise ValueError("give experts (trained here) or teachers (existing models), not both")
        is_by_column = self.experts and isinstance(self.experts.partition, ByColumn)
        if is_by_column and self.data.columns.domain is None:
            raise ValueError(
                "experts.partition.type 'column' needs data.columns.domain: name the column, "
                "or use partition.type 'kmeans'"
            )
        if self.aggregation.needs_router():
            has_router = self.experts is not None and self.experts.router is not None
            if not has_router and getattr(self.aggregation, "router", None) is None:
                raise ValueError(
                    f"aggregation.type {self.aggregation.type!r} needs a router: give "
                    "aggregation.router (a folder), or experts with experts.router"
                )
        baseline_names = [b.name for b in self.baselines]
        if "student" in baseline_names:
            raise ValueError(
                "baselines: 'student' is the name of the distilled student: use another name"
            )
        _reject_confusable("baselines", baseline_names)
        if self.chain is not None:
            self._check_chain()
        self._check_mean()
        if self.trainer.device == "cuda" and self.trainer.num_gpus_per_worker == 0:
            raise ValueError("trainer.device is cuda: set trainer.num_gpus_per_worker above 0")
        if self.trainer.device == "cpu" and self.trainer.num_gpus_per_worker > 0:
            raise ValueError("trainer.num_gpus_per_worker is above 0 with trainer.device cpu")
        return self

    def _check_mean(self) -> None:
        if self.kd.normalise == "tokens":
            return
        key = f"kd.normalise {self.kd.normalise}"
        for _, message in misfits(self.kd, self.task, "kd"):
            raise ValueError(message)
        if self.data.packing:
            raise ValueError(
                f"{key} averages over the tokens of each text, and data.packing puts several texts "
                "into a row: set data.packing: false, or kd.normalise: tokens"
            )

    def _check_chain(self) -> None:
        if not self.has_teachers:
            raise ValueError(
                "chain needs teachers, from which its first link is distilled: give experts or "
                "teachers, or remove chain"
            )
        named = {"teachers": [t.name for t in self.teachers]}
        named["baselines"] = [b.name for b in self.baselines]
        for key, names in named.items():
            if taken := [name for name in names if is_link_name(name)]:
                raise ValueError(
                    f"{key}: {taken[0]!r} is the name of a link of the chain: use another name"
                )

    @property
    def has_teachers(self) -> bool:
        return self.experts is not None or bool(self.teachers)


def _reject_confusable(key: str, names: list[str]) -> None:
    found = confusable(names)
    if found is not None:
        one, other = map(repr, found)
        both = (
            f"two {key} are named {one}" if one == other else f"{one} and {other} are too similar"
        )
        raise ValueError(f"{key}: {both}: names must differ in more than case and spaces")


def load(
    path: str | Path, overrides: list[str] | None = None, output_suffix: str = ""
) -> Experiment:
    """The experiment in a YAML file, with ``a.b=c`` overrides (values are YAML) applied in order.

    ``output`` defaults to ``runs/<stem><output_suffix>`` and ``tracking.experiment`` to the stem.
    """
    path = Path(path)
    raw = _read(path)
    for override in overrides or []:
        assign(raw, *parse_override(override))
    raw.setdefault("output", f"runs/{path.stem.removesuffix(output_suffix)}{output_suffix}")
    tracking = raw.setdefault("tracking", {})
    if isinstance(tracking, dict) and tracking.get("experiment") is None:
        tracking["experiment"] = path.stem
    return parse(raw, source=str(path))


def _read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; ConfigError for one that cannot be read or is no mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"no configuration file at {path}{_files_near(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}") from None
    try:
        raw = read_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {yaml_fault(error, text)}") from None
    if raw is None:
        raise ConfigError(f"{path} is empty: it must at least have data.path")
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{path} must hold a mapping of keys, such as data: and teachers:, got "
            f"{type(raw).__name__}"
        )
    return raw


def _files_near(path: Path) -> str:
    """The YAML files that are in the folder instead."""
    there = sorted(each.name for each in path.parent.glob("*.y*ml"))[:5]
    return f": {path.parent}/ has {', '.join(there)}" if there else ": check the path"


def parse(raw: dict[str, Any], source: str = "configuration") -> Experiment:
    """Validate a mapping; every problem in one ConfigError, a line each."""
    try:
        return Experiment.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(explain(error, source, Experiment, raw)) from None
