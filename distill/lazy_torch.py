"""torch for the files of configuration classes, imported at its first use.

A configuration class *is* its method, so its file computes with torch, whose import takes seconds:
a configuration that is refused must not wait for it. Such a file imports like this:

    if TYPE_CHECKING:
        import torch
        from torch import Tensor, nn
    else:
        from distill.lazy_torch import torch

and has ``from __future__ import annotations``, so that annotations are not evaluated.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any


class _Lazy(ModuleType):
    """Attributes of the module of this name, looked up there once each."""

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(import_module(self.__name__), attribute)
        setattr(self, attribute, value)
        return value


torch = _Lazy("torch")
