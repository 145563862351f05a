"""distill: several large expert teachers in, one small student out.

import distill
result = distill.train("digits.yaml", teachers={"forest": forest, "boosting": boosting})
result.student, result.metrics, result.predict(rows)
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill.api import check as check
    from distill.api import evaluate as evaluate
    from distill.api import experts as experts
    from distill.api import export as export
    from distill.api import frontier as frontier
    from distill.api import predict as predict
    from distill.api import preview as preview
    from distill.api import report as report
    from distill.api import sweep as sweep
    from distill.api import train as train

__version__ = "0.1.0"
__all__ = [
    "check",
    "evaluate",
    "experts",
    "export",
    "frontier",
    "predict",
    "preview",
    "report",
    "sweep",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in __all__:  # late: `import distill` and `distill --help` must not import torch
        from distill import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"Any", "ModuleType", "TYPE_CHECKING", "sys"})


class _Package(ModuleType):
    """Some functions are called like the module that does their work (check, report, …). Importing
    such a module would put it in the function's place; imports find it in sys.modules all the same.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
