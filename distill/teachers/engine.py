"""One teacher in this process: a request in, raw logits out.

Shape suffixes: B rows, T tokens, V classes.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.errors import TeacherAnswerError
from distill.records import TeacherOutput, TeacherRequest
from distill.teachers.probability import ProbabilityModel, is_pickle, load_pickled
from distill.teachers.wires import DenseWire
from distill.variant import Dtype

Model = Callable[..., Any]
"""Takes ``input_ids``, ``attention_mask`` and, for pairs, ``token_type_ids`` (int64 [B, T]), or
``features`` (float32 [B, D]), or ``texts`` (B strings); returns logits [B, V], bare or as
``.logits``, perhaps with a ``.num_clamped``."""


class TeacherEngine:
    """A frozen classifier behind :meth:`answer`; the same request always has the same answer."""

    def __init__(
        self,
        model: str | Path | Model,
        *,
        num_labels: int,
        device: str = "cpu",
        dtype: Dtype = "float32",
        wire: DenseWire | None = None,
        max_batch_tokens: int = 16384,
        allow_pickle: bool = False,
        num_threads: int | None = None,
    ) -> None:
        """``model`` is a Hugging Face folder, the pickle of an object with ``predict_proba``, or
        the model or object itself (tests, simulated teachers).

        ``max_batch_tokens`` is in padded tokens of one forward. ``num_threads`` sets the threads
        of the whole process; None leaves them. Raises ModelError for an unusable folder.
        """
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        self.model = _frozen(model, device, dtype, allow_pickle)
        self.num_labels = num_labels
        self.device = torch.device(device)
        self.wire = wire or DenseWire()
        self.max_batch_tokens = max_batch_tokens

    def answer(self, request: TeacherRequest) -> TeacherOutput:
        """All rows of the request, in its order; raises TeacherAnswerError, never a wrong shape."""
        started = time.perf_counter()
        logits_BV, num_clamped = self._forward(request)
        compute_s = time.perf_counter() - started
        expected = (request.num_rows, self.num_labels)
        if tuple(logits_BV.shape) != expected:
            raise TeacherAnswerError(
                f"request {request.request_id}: the teacher's logits have shape "
                f"{list(logits_BV.shape)}, expected {list(expected)}: give a teacher with "
                f"{self.num_labels} classes"
            )
        if not torch.isfinite(logits_BV).all():
            raise TeacherAnswerError(
                f"request {request.request_id}: the teacher's logits hold NaN or infinity: "
                "check its weights, or serve it in float32"
            )
        payload = self.wire.encode(logits_BV)
        return TeacherOutput(
            request.request_id,
            request.rows_B,
            payload,
            self.wire.name,
            compute_s,
            num_clamped,
        )

    @torch.inference_mode()
    def _forward(self, request: TeacherRequest) -> tuple[Tensor, int]:
        """Float32 logits [B, V] on the CPU, in forwards of whole rows; probabilities clamped."""
        inputs = request.inputs()
        # The split depends on the request alone, so that its answer does.
        rows_a_forward = max(1, self.max_batch_tokens // max(1, request.num_tokens))
        blocks = []
        num_clamped = 0
        for first in range(0, request.num_rows, rows_a_forward):
            block = slice(first, first + rows_a_forward)
            out = self.model(**{k: self._placed(v[block]) for k, v in inputs.items()})
            blocks.append(getattr(out, "logits", out).float().cpu())
            num_clamped += getattr(out, "num_clamped", 0)
        return torch.cat(blocks), num_clamped

    def _placed(self, values: np.ndarray) -> Tensor | np.ndarray:
        """On the model's device; texts stay as they are."""
        if values.dtype == object:
            return values
        # .copy(): arrays out of Ray's object store are read-only, which torch warns about.
        return torch.from_numpy(values.copy()).to(self.device)


def _frozen(model: str | Path | Model, device: str, dtype: Dtype, allow_pickle: bool) -> Model:
    if isinstance(model, str | Path) and is_pickle(model):
        return ProbabilityModel(load_pickled(model, allow_pickle))
    if isinstance(model, str | Path):
        from distill.models.load import load_classifier

        loaded: Any = load_classifier(model, allow_pickle=allow_pickle, dtype=dtype)
        return loaded.eval().to(device)
    if isinstance(model, nn.Module):
        return model.eval().to(device)
    return ProbabilityModel(model) if hasattr(model, "predict_proba") else model
