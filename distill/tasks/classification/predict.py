"""Predictions row by row, in one process: of a student, of each teacher, of ensembles of them.

Shape suffixes: B rows of a batch, R all rows, K teachers, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from distill.aggregation import Aggregation
from distill.data.batches import BatchSource
from distill.errors import Interrupted
from distill.records import RoutingInputs, ScheduleValues, TeacherAnswers
from distill.training.loop import NoTeachers, TargetSource
from distill.training.trainable import Trainable


@dataclass(frozen=True, eq=False)
class Predicted:
    """Probabilities at T = 1, float64 [R, C]; the teachers' are the aggregate's, or None."""

    student_RC: np.ndarray
    teacher_RC: np.ndarray | None
    weights_RK: np.ndarray | None = None
    """float32: of the teachers in the aggregate."""

    @property
    def student_R(self) -> np.ndarray:
        """Class indices, int64 [R]."""
        return self.student_RC.argmax(1)

    @property
    def teacher_R(self) -> np.ndarray | None:
        return None if self.teacher_RC is None else self.teacher_RC.argmax(1)


@dataclass(frozen=True)
class PredictedTeachers:
    """Class indices, int64 [R], of each teacher and ensemble by name."""

    classes_R: dict[str, np.ndarray]
    router_logits_RK: np.ndarray | None
    """float32, raw; None without a router."""


@torch.inference_mode()
def predict(
    module: Trainable,
    batches: BatchSource,
    source: TargetSource | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Predicted:
    """The outputs of the module, in evaluation mode and on its device, for every row in order."""
    device = next(module.parameters()).device
    student, teacher, weights = [], [], []
    for step in (source or NoTeachers()).feed(batches, 0, batches.steps_per_epoch):
        _check_stop(should_stop)
        for batch, answers in step.parts:
            on_device = None if answers is None else answers.to(device)
            output = module(batch.to(device), on_device, ScheduleValues())
            kept_B = batch.valid_B
            student.append(output.logits_BV.double().softmax(-1).cpu()[kept_B])
            if output.teacher_logp_BV is not None:
                teacher.append(output.teacher_logp_BV.double().exp().cpu()[kept_B])
                weights.append(output.weights_KB.T.cpu()[kept_B])
    if not teacher:
        return Predicted(_joined(student), None)
    return Predicted(_joined(student), _joined(teacher), _joined(weights))


@torch.inference_mode()
def predict_teachers(
    source: TargetSource,
    batches: BatchSource,
    names: Sequence[str],
    mixtures: Mapping[str, Aggregation],
    domain_teachers_of: Callable[[np.ndarray], np.ndarray],
    should_stop: Callable[[], bool] = lambda: False,
) -> PredictedTeachers:
    """Of each teacher alone and of each ensemble without trained weights.

    ``source`` must query all teachers for every row (and the router, if an ensemble is routed).
    ``domain_teachers_of``: of row ids, the index of the teacher named like the row's domain, or -1.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in (*names, *mixtures)}
    router: list[Tensor] = []
    for step in source.feed(batches, 0, batches.steps_per_epoch):
        _check_stop(should_stop)
        for batch, answers in step.parts:
            assert isinstance(answers, TeacherAnswers)
            router_BK = answers.router_logits_BK
            domain_teacher_B = torch.from_numpy(domain_teachers_of(batch.rows_B))
            known = RoutingInputs(tuple(names), domain_teacher_B, router_BK)
            if router_BK is not None:
                router.append(router_BK[batch.valid_B])
            for k, name in enumerate(names):
                found[name].append(answers.logits_KBV[k].argmax(-1)[batch.valid_B])
            for name, aggregation in mixtures.items():
                # Only those that this aggregation queries.
                chosen = replace(answers, queried_KB=aggregation.choose(known))
                weights_KB = aggregation.weigh(chosen, None, None).weights_KB
                logp_BV = aggregation.target(chosen, weights_KB, 1.0).logp_NV
                found[name].append(logp_BV.argmax(-1)[batch.valid_B])
    classes_R = {name: _joined(parts) for name, parts in found.items()}
    return PredictedTeachers(classes_R, _joined(router) if router else None)


def _check_stop(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise Interrupted("stopped during the evaluation; the trained student is kept")


def _joined(parts: list[Tensor]) -> np.ndarray:
    return torch.cat(parts).numpy()
