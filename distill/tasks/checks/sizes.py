"""Sizes of models, as far as estimates of time and memory need them."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NamedTuple

from distill.models.weights import shapes_of_floats, stored_tensors

SAMPLE = 256
"""Rows whose tokens are counted."""
_LAYER = re.compile(r"\.(?:layers?|h|block)\.(\d+)\.")


class ModelSize(NamedTuple):
    """Of a student."""

    num_params: int
    num_trained: int
    num_active: int
    """Parameters that multiply: without embeddings, which are looked up."""
    layers: int
    hidden: int

    @property
    def per_parameter(self) -> float:
        """See :class:`distill.cluster.estimates.Training`."""
        return 6.0 if self.num_trained == self.num_params else 4.0


class FolderSize(NamedTuple):
    """Of the model in a folder, whose layers are all alike: a teacher, or a base that experts and
    router start from."""

    num_params: int
    num_active: int
    layers: int

    def first(self, layers: int | None) -> FolderSize:
        """Without the other layers; None: all."""
        kept = self.layers if layers is None else min(layers, self.layers)
        return self._replace(num_active=round(self.num_active * kept / self.layers), layers=kept)

    def per_parameter(self, train_layers: int | None) -> float:
        """Where the top layers alone are trained, gradients of the others are not computed."""
        trained = self.layers if train_layers is None else min(train_layers, self.layers)
        return 2.0 + 4.0 * trained / self.layers


def sample(rows: range) -> range:
    """Rows whose tokens are counted."""
    return rows[:: max(1, len(rows) // SAMPLE)][:SAMPLE]


def params_beyond(folder: str, num_kept: int) -> int:
    """Parameters of a folder's layers beyond the first ``num_kept``; all layers are alike."""
    shapes = shapes_of_floats(stored_tensors(Path(folder), allow_pickle=False))
    numbers = {name: _LAYER.search(name) for name in shapes}
    return sum(
        math.prod(shapes[name])
        for name, found in numbers.items()
        if found is not None and int(found[1]) >= num_kept
    )
