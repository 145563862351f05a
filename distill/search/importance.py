"""How much each searched key moves a metric: permutation importance on held-out trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from distill.search.trials import Trial, Value

MIN_TRIALS = 8
NUM_FOLDS = 5
NUM_REPEATS = 3
NUM_SHUFFLES = 8
NUM_TREES = 60


HAS_NO_SKILL = 0.3
"""R² below which importances are called noise."""


@dataclass(frozen=True)
class Importance:
    """Importances of the searched keys for ``metric``, estimated from the trials."""

    metric: str
    num_trials: int
    """Finished trials that have the metric."""
    r2: float | None = None
    """Share of the metric's variance that the model explains on held-out trials: at or
    below 0 it has no skill, and then the importances are noise."""
    keys: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Key → (mean, standard deviation over folds and repeats), the most important first: by how
    much R² falls on held-out trials when this key's values are shuffled among them."""
    reason: str = ""
    """Why it was not measured."""


def importance(
    trials: Sequence[Trial], searched: Sequence[str], metric: str, seed: int = 0
) -> Importance:
    """Permutation importance (Breiman 2001) of a forest of extremely randomised trees.

    Measured on held-out trials (5 folds, several partitions), so that a key which the forest only
    memorised scores 0. Only finished trials count: a stopped one has a shorter training.
    """
    from sklearn.model_selection import KFold

    known = [
        t for t in trials if t.status == "finished" and np.isfinite(t.metrics.get(metric, np.nan))
    ]
    target_N = np.array([t.metrics[metric] for t in known], np.float64)
    columns = {key: [t.values.get(key) for t in known] for key in searched}
    varied = {key: values for key, values in columns.items() if len(set(values)) > 1}
    result = Importance(metric, len(known), reason=_refusal(target_N, varied, metric))
    if result.reason:
        return result
    blocks = {key: _encoded(values) for key, values in varied.items()}
    rng = np.random.default_rng(seed)
    predicted: list[tuple[np.ndarray, np.ndarray]] = []
    falls: dict[str, list[float]] = {key: [] for key in blocks}
    for repeat in range(NUM_REPEATS):
        folds = KFold(NUM_FOLDS, shuffle=True, random_state=seed + repeat)
        for train, held_out in folds.split(target_N):
            fold = _fold_falls(blocks, target_N, train, held_out, rng)
            predicted.append((target_N[held_out], fold.predicted))
            for key, fall in fold.falls.items():
                falls[key].append(fall / float(target_N.var()))
    error = np.concatenate([(truth - guess) ** 2 for truth, guess in predicted]).mean()
    keys = {key: (float(np.mean(f)), float(np.std(f))) for key, f in falls.items()}
    keys |= {key: (0.0, 0.0) for key in searched if key not in keys}
    ordered = dict(sorted(keys.items(), key=lambda item: -item[1][0]))
    return Importance(metric, len(known), float(1 - error / target_N.var()), ordered)


def _refusal(target_N: np.ndarray, varied: dict[str, list[Value | None]], metric: str) -> str:
    if len(target_N) < MIN_TRIALS:
        return f"{len(target_N)} finished trials with {metric}: at least {MIN_TRIALS} are needed"
    if not varied:
        return "no searched key differs between the finished trials"
    if np.ptp(target_N) == 0:
        return f"{metric} is the same in all {len(target_N)} trials"
    return ""


@dataclass(frozen=True)
class _Fold:
    predicted: np.ndarray
    falls: dict[str, float]
    """Rise of the mean squared error when a key is shuffled."""


def _fold_falls(
    blocks: dict[str, np.ndarray],
    target_N: np.ndarray,
    train: np.ndarray,
    held_out: np.ndarray,
    rng: np.random.Generator,
) -> _Fold:
    from sklearn.ensemble import ExtraTreesRegressor

    features = np.concatenate(list(blocks.values()), axis=1)
    forest = ExtraTreesRegressor(NUM_TREES, min_samples_leaf=2, random_state=0)
    forest.fit(features[train], target_N[train])
    inputs = [features[held_out]]
    start = 0
    for block in blocks.values():
        stop = start + block.shape[1]
        shuffled = np.tile(features[held_out], (NUM_SHUFFLES, 1))
        # From all trials, not only the few held out: a fold may hold one value alone.
        shuffled[:, start:stop] = block[rng.integers(len(block), size=len(shuffled))]
        inputs.append(shuffled)
        start = stop
    # One call for all: a forest's overhead is per call.
    predicted, *shuffled_guesses = np.split(
        forest.predict(np.concatenate(inputs)), np.cumsum([len(q) for q in inputs])[:-1]
    )
    truth = target_N[held_out]
    error = float(((predicted - truth) ** 2).mean())
    falls = {
        key: float(((guesses.reshape(NUM_SHUFFLES, -1) - truth) ** 2).mean()) - error
        for key, guesses in zip(blocks, shuffled_guesses, strict=True)
    }
    return _Fold(predicted, falls)


def _encoded(values: Sequence[Value | None]) -> np.ndarray:
    """(N, columns): numbers as they are, anything else one column a value (missing included)."""
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return np.array(values, np.float64)[:, None]
    choices = sorted({str(v) for v in values})
    return np.array([[str(v) == choice for choice in choices] for v in values], np.float64)
