"""distill: several large expert teachers in, one small student out.

import distill
outcome = distill.train("digits.yaml", teachers={"forest": forest, "boosting": boosting})
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill.api import train as train

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "train":  # late: `distill --help` must not import torch
        from distill.api import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
