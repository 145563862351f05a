"""Features: bounded noise. Shape suffixes: B rows, D features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def noise(features_BD: Floats, sd_D: Floats, bound: float, rng: np.random.Generator) -> Floats:
    """``features_BD`` plus independent uniform noise on [-bound, bound] standard deviations.

    ``sd_D`` are the features' standard deviations, in their units: a constant feature stays as it
    is. Values that are not finite stay so. The result has the dtype of ``features_BD``.
    """
    assert bound >= 0, f"bound is a width, got {bound}"
    noise_BD = rng.uniform(-bound, bound, features_BD.shape) * sd_D
    return (features_BD + noise_BD).astype(features_BD.dtype)
