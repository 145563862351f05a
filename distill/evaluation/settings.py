"""What ``distill evaluate`` measures besides quality; ``section.key=value`` on its command line."""

from __future__ import annotations

from typing import Any, Literal, get_args

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from distill.config import Device
from distill.config.explain import explain
from distill.config.labels import configured_map
from distill.config.overrides import assign, parse_override
from distill.config.yaml_text import read_yaml
from distill.errors import ConfigError
from distill.evaluation.attacks import METHODS, Method
from distill.evaluation.relations import Relations
from distill.transform import LANGUAGES, TRANSFORMATIONS
from distill.transform.text import TEXT_TRANSFORMATIONS
from distill.variant import Section

Kind = Literal["c", "cpp", "java", "python", "text"]


class Transform(Section):
    """Behaviour-preserving changes of the inputs, each applied to the same rows."""

    names: tuple[str, ...] | None = None
    """Names of transformations; null: all for this kind of input; []: none."""
    num_samples: int = Field(default=500, ge=1)
    """Number of rows that are transformed, a seeded sample."""
    max_unparsed: float = Field(default=0.5, ge=0, le=1)
    """Maximum share of source texts that do not parse; they are counted and not transformed. Above
    this share, the language is probably wrong and the data is refused."""
    noise: float = Field(default=0.1, gt=0)
    """Features: the bound of the uniform noise, in standard deviations of each feature."""


class Attack(Section):
    """Black-box attacks on the student, and on its teacher; see evaluation/attacks/search.py.

    They take most of the time of an evaluation, and run only with ``--attacks``, with a key of this
    section or with a gate on one of their metrics.
    """

    methods: tuple[Method, ...] = ()
    """Names of attacks; []: none. If another key of this section is set, the default is all.
    ``random`` is MHM's search. ``greedy`` is ALERT-like: greedy stage only, no genetic stage, no
    masked-language-model substitutes. ``style`` changes layout, comments, loops, branches or
    punctuation. ``combined`` is ``greedy`` for half the queries, then ``style``."""
    budget: int = 50
    """Queries for each sample and method."""
    num_samples: int = Field(default=200, ge=1)
    """Number of rows that are attacked, a seeded sample."""

    @model_validator(mode="before")
    @classmethod
    def _all_by_default(cls, raw: Any) -> Any:
        is_some = isinstance(raw, dict) and raw and "methods" not in raw
        return raw | {"methods": tuple(METHODS)} if is_some else raw

    @field_validator("methods", mode="before")
    @classmethod
    def _known(cls, methods: Any) -> Any:
        chosen = [methods] if isinstance(methods, str) else methods
        if not isinstance(chosen, list | tuple):
            raise ValueError(
                f"attack.methods must be a list, got {methods!r}: choose from "
                f"{', '.join(get_args(Method))}, or set [] to run none"
            )
        unknown = [m for m in chosen if m not in get_args(Method)]
        if unknown:
            raise ValueError(
                f"attack.methods: there is no attack {unknown[0]!r}: choose from "
                f"{', '.join(get_args(Method))}"
            )
        return tuple(chosen)

    @field_validator("budget")
    @classmethod
    def _some(cls, budget: int) -> int:
        if budget < 1:
            raise ValueError(
                f"attack.budget must be at least 1 query per sample, got {budget}: to run no "
                "attacks, set attack.methods=[]"
            )
        return budget


class Intervals(Section):
    """Bootstrap intervals of the quality."""

    num_draws: int = Field(default=1000, ge=0)
    """Number of resamples; 0: no intervals."""
    level: float = Field(default=0.95, gt=0, lt=1)


class Evaluation(Section):
    relations: Relations = Relations()
    transform: Transform = Transform()
    attack: Attack = Attack()
    intervals: Intervals = Intervals()
    num_worst: int = Field(default=20, ge=0)
    """Number of listed samples on which student and teacher differ most."""
    num_workers: int = Field(default=0, ge=0)
    """Copies of each model on Ray; 0: compute in this process."""
    num_gpus: float = Field(default=1.0, gt=0)
    """GPUs of each copy, if ``device`` is a GPU."""
    device: Device = "auto"
    """auto: a GPU if this machine has one, else the CPU."""
    seed: int = Field(default=0, ge=0)

    @property
    def on_device(self) -> Literal["cpu", "cuda"]:
        if self.device != "auto":
            return self.device
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"


def parse_settings(overrides: list[str]) -> Evaluation:
    """``attack.budget=100 relations.tau=0.8``; ConfigError with a line for each problem."""
    raw: dict[str, Any] = {}
    for override in overrides:
        key, value = parse_override(override)
        assign(raw, key, value)
    try:
        return Evaluation.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(explain(error, "evaluate", Evaluation, raw)) from None


def parse_labels(text: str) -> dict[str, str]:
    """``--teacher-labels``: a map of labels, as YAML; ConfigError for what is none."""
    try:
        return configured_map(read_yaml(text))
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"--teacher-labels {text!r}: {str(error).splitlines()[0]}") from None


def transformations_of(kind: Kind | None, settings: Transform) -> tuple[str, ...]:
    """Names of the transformations to apply; ConfigError for one that is not there.

    ``kind`` None: of features.
    """
    if kind is None:
        known: tuple[str, ...] = ("noise",)
    else:
        known = tuple(TEXT_TRANSFORMATIONS if kind == "text" else TRANSFORMATIONS)
    unknown = [name for name in settings.names or () if name not in known]
    if unknown:
        raise ConfigError(
            f"transform.names: there is no transformation {unknown[0]!r} of "
            f"{kind or 'features'}: choose from {', '.join(known)}"
        )
    return known if settings.names is None else settings.names


def parse_kind(language: str) -> Kind:
    """ConfigError for a language without a grammar."""
    known = (*LANGUAGES, "text")
    if language not in known:
        raise ConfigError(
            f"--language {language}: this language is not supported: choose from {', '.join(known)}"
        )
    return language  # type: ignore[return-value]
