"""The authors' HPM-KD on the splits of hpm_kd.py, in an environment with their package alone.

    python benchmarks/hpm_kd_deepbridge.py runs/hpm-kd/splits

For each split file two calls: ``HPMKD``, the interface of the paper's listing, which gives no
outputs of the teacher to its distiller; and ``HPMDistiller.fit`` with ``teacher_probs``, the mean
of the same teachers as hpm_kd.py has. Their settings are the defaults. A call that takes longer
than ``LIMIT_S`` of CPU time is ended, and its data set is not tried again. Writes deepbridge.json
next to the splits.

An ensemble that the package selects cannot predict other rows than those of validation; see
:func:`_of_ensemble`. Such an accuracy is marked by the error that came first.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import signal
import sys
import time
import traceback
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

LIMIT_S = 180.0
"""Of CPU time, for one call."""


class Teacher:
    """What HPMKD needs of a teacher: ``predict``, here of the test rows alone."""

    def __init__(self, probs_RC: np.ndarray) -> None:
        self._probs_RC = probs_RC

    def predict(self, features_RD: np.ndarray) -> np.ndarray:
        assert len(features_RD) == len(self._probs_RC)
        return self._probs_RC.argmax(1)


def main() -> None:
    folder = Path(sys.argv[1])
    warnings.filterwarnings("ignore")
    signal.signal(signal.SIGVTALRM, _too_long)
    results = []
    ended = set()
    # The largest last.
    for path in sorted(folder.glob("*.npz"), key=lambda path: (path.stat().st_size, path.stem)):
        task, _, seed = path.stem.rpartition("-")
        arrays = dict(np.load(path))
        for name, call in (("HPMKD", _wrapper), ("HPMDistiller", _distiller)):
            if task in ended:
                continue
            result = {"task": task, "seed": int(seed), "name": name} | _run(call, arrays, int(seed))
            if result.get("error", "").startswith("not finished"):
                ended.add(task)
            print(json.dumps(result), flush=True)
            results.append(result)
        _write(folder, results)


def _write(folder: Path, results: list[dict[str, Any]]) -> None:
    packages = ("deepbridge-distillation", "deepbridge", "scikit-learn", "xgboost", "numpy")
    record = {"versions": {name: version(name) for name in packages}, "runs": results}
    (folder / "deepbridge.json").write_text(json.dumps(record, indent=1))


def _run(call: Any, arrays: dict[str, np.ndarray], seed: int) -> dict[str, Any]:
    """Accuracy on the test rows, what was selected, and the package's own warnings and errors."""
    messages = _Messages()
    logging.getLogger().addHandler(messages)
    started = time.process_time()
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_S)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            distiller = call(arrays, seed)
            predicted_R = np.asarray(distiller.predict(arrays["test_features"]))
    except _TooLong:
        return {"error": f"not finished after {LIMIT_S:.0f} s of CPU time"}
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}, line {where.lineno}"
        return {"error": f"{type(error).__name__}: {error} ({place})", "messages": messages.seen}
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        logging.getLogger().removeHandler(messages)
    stages = distiller.progressive_chain.stages
    model = distiller.best_model
    outcome: dict[str, Any] = {"error": ""}
    if len(predicted_R) != len(arrays["test_labels"]):
        num, wanted = len(predicted_R), len(arrays["test_labels"])
        outcome["error"] = f"predict of {wanted:,} test rows returned {num:,} classes"
        predicted_R = _of_ensemble(distiller, arrays["test_features"])
    outcome["accuracy"] = float((predicted_R == arrays["test_labels"]).mean())
    return outcome | {
        "selected": distiller.best_metrics["source"],
        "score": distiller.best_metrics["accuracy"],
        "model": type(model).__name__,
        "stages": [[stage.model_type.name, stage.performance] for stage in stages],
        "messages": messages.seen,
        "cpu_seconds": time.process_time() - started,
    }


def _of_ensemble(distiller: Any, features_RD: np.ndarray) -> np.ndarray:
    """Its ensemble keeps the outputs of its members for the validation rows and returns them for
    any rows: here they are deleted first. The weights are those found on validation."""
    weights = [teacher.attention_weight for teacher in distiller.best_model.teachers]
    for teacher in distiller.best_model.teachers:
        teacher.predictions = None
    return distiller.best_model.weighted_knowledge_fusion(features_RD, np.array(weights)).argmax(1)


class _TooLong(BaseException):
    """No Exception: the package catches those of a configuration, and goes on."""


def _too_long(*_: object) -> None:
    raise _TooLong


def _wrapper(arrays: dict[str, np.ndarray], seed: int) -> Any:
    from deepbridge_distillation import HPMKD

    wrapper = HPMKD(
        teacher_model=Teacher(arrays["test_mean"]),
        train_loader=(arrays["train_features"], arrays["train_labels"]),
        test_loader=(arrays["test_features"], arrays["test_labels"]),
        random_state=seed,
    )
    wrapper.distill(X_val=arrays["validation_features"], y_val=arrays["validation_labels"])
    return wrapper._distiller


def _distiller(arrays: dict[str, np.ndarray], seed: int) -> Any:
    from deepbridge_distillation.techniques.hpm import HPMConfig, HPMDistiller

    distiller = HPMDistiller(config=HPMConfig(random_state=seed))
    return distiller.fit(
        arrays["train_features"],
        arrays["train_labels"],
        arrays["validation_features"],
        arrays["validation_labels"],
        teacher_probs=arrays["train_mean"],
    )


class _Messages(logging.Handler):
    """Each different warning or error, once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{record.levelname}: {record.getMessage()}"
        if text not in self.seen:
            self.seen.append(text)


if __name__ == "__main__":
    main()
