"""The base of every configuration class, and of every method (a config class *is* its method)."""

import os
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

from distill.names import checked_name

Dtype = Literal["float32", "bfloat16"]
ModelPath = Annotated[str, AfterValidator(os.path.expanduser)]
"""Of a model, tokenizer or adapter; ``~`` is the home folder, as in ``data.path``."""
Name = Annotated[str, AfterValidator(checked_name)]
"""One line of text: C++, 电影, Home & Kitchen; see names.py."""


class Section(BaseModel):
    """A part of the configuration: frozen, unknown keys refused, field docs under the field."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class Variant(Section):
    """One choice of a family, distinguished by its ``type``."""

    tasks: ClassVar[tuple[str, ...]] = ()
    """The values of ``task`` that it can be used with; (): all. See config/keys_of_tasks.py."""
    type: str


@dataclass(frozen=True)
class Only:
    """In the annotation of a key: it applies to one task. See config/keys_of_tasks.py."""

    task: str
    values: tuple[object, ...] = ()
    """These values of the key apply only to the task; (): all but the default."""
    way_out: str = "remove it"
    """What to do with another task."""
