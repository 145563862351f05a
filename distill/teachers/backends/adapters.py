"""One copy of a base and its adapters: several teachers, of which one computes at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from distill.models.adapter import Adapters
from distill.models.language import load_language_model
from distill.variant import Dtype


class SharedBase:
    """Loads the base once, and the adapters on it."""

    def __init__(
        self,
        folder: str | Path,
        adapters: Sequence[str | Path],
        *,
        device: str = "cpu",
        dtype: Dtype = "float32",
        allow_pickle: bool = False,
    ) -> None:
        """Raises ModelError for folders that cannot be used, or do not fit each other."""
        base = load_language_model(folder, dtype, allow_pickle)
        self._adapters = Adapters(base, adapters)
        self._adapters.model.to(torch.device(device))  # pyright: ignore[reportArgumentType]
        self._turn = threading.Lock()

    @property
    def model(self) -> Any:
        return self._adapters.model

    @contextmanager
    def using(self, number: int) -> Iterator[None]:
        """The model is the base with this adapter; meanwhile no other can be had."""
        with self._turn:
            self._adapters.activate(number)
            yield
