"""One teacher in this process: a request in, its answer in a wire out.

Shape suffixes: B rows, T tokens, V classes or vocabulary, H hidden, P positions.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from distill.data.splits import mix64
from distill.errors import ModelError, TeacherAnswerError
from distill.records import Head, TeacherOutput, TeacherRequest
from distill.sampling.judging import Judging
from distill.sampling.records import DraftRequest, Verdict, WriteRequest, WrittenText
from distill.sampling.writing import write
from distill.teachers.probability import ProbabilityModel, is_pickle, load_pickled
from distill.teachers.wires import DenseWire, WireFormat
from distill.variant import Dtype

Model = Callable[..., Any]
"""Takes ``input_ids``, ``attention_mask`` and, for pairs, ``token_type_ids`` (int64 [B, T]), or
``features`` (float32 [B, D]), or ``texts`` (B strings); returns logits [B, V], bare or as
``.logits``, perhaps with a ``.num_clamped``. A language model is a transformers model."""

POSITIONS = 512
"""Positions of a language model whose logits are encoded at once: [P, V] is never whole."""


class TeacherEngine:
    """A frozen model behind :meth:`answer`; the same request always has the same answer."""

    def __init__(
        self,
        model: str | Path | Model,
        *,
        num_labels: int,
        device: str = "cpu",
        dtype: Dtype = "float32",
        wire: WireFormat | None = None,
        max_batch_tokens: int = 16384,
        allow_pickle: bool = False,
        num_threads: int | None = None,
        is_language_model: bool = False,
    ) -> None:
        """``model`` is a Hugging Face folder, the pickle of an object with ``predict_proba``, or
        the model or object itself (tests, simulated teachers).

        ``num_labels``: classes; of a language model, tokens (columns beyond are padding and are cut
        off). ``max_batch_tokens`` is in padded tokens of one forward. ``num_threads`` sets the
        threads of the whole process; None leaves them. Raises ModelError for an unusable folder.
        """
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        self.device = torch.device(device)
        self.wire = wire or DenseWire()
        self.max_batch_tokens = max_batch_tokens
        self.num_labels = num_labels
        self._model: _Model
        if is_language_model:
            spoken = _LanguageModel(model, num_labels, self.device, dtype, allow_pickle)
            if self.wire.takes == "hidden":
                spoken.check_linear()
            self._model = spoken
        else:
            self._model = _Classifier(model, num_labels, self.device, dtype, allow_pickle)

    @torch.inference_mode()
    def answer(self, request: TeacherRequest) -> TeacherOutput:
        """All rows of the request, in its order; raises TeacherAnswerError, never a wrong shape."""
        wire = request.wire or self.wire
        payloads, compute_s = [], 0.0
        self._model.num_clamped = 0
        started = time.perf_counter()
        for said_PX, positions in self._said(request, wire):
            compute_s += time.perf_counter() - started
            if not torch.isfinite(said_PX).all():
                raise TeacherAnswerError(
                    f"request {request.request_id}: the teacher's logits hold NaN or infinity: "
                    "check its weights, or serve it in float32"
                )
            payloads.append(wire.encode(said_PX, positions))
            started = time.perf_counter()
        return TeacherOutput(
            request.request_id,
            request.rows_B,
            np.concatenate(payloads),
            wire.name,
            compute_s,
            self._model.num_clamped,
        )

    @torch.inference_mode()
    def judge(self, request: DraftRequest) -> Verdict:
        """Of a language model: which drafts pass, and what comes instead of the first other."""
        return self._speaker.judging.judge(request)

    @torch.inference_mode()
    def write(self, request: WriteRequest) -> WrittenText:
        """Of a language model: how it continues each prompt."""
        found = write(
            self._speaker.model,
            self.num_labels,
            [prompt.tolist() for prompt in request.prompts],
            request.limits,
            request.ends,
            request.seeds_B,
            request.decoding,
        )
        texts = tuple(np.array(text, np.int64) for text in found.texts)
        return WrittenText(request.request_id, texts)

    @property
    def _speaker(self) -> "_LanguageModel":
        assert isinstance(self._model, _LanguageModel)
        return self._model

    def head(self) -> Head:
        """A language model's output layer, on the CPU, cut to its real tokens."""
        return self._speaker.head().to("cpu")

    def _said(
        self, request: TeacherRequest, wire: WireFormat
    ) -> Iterator[tuple[Tensor, np.ndarray]]:
        """Blocks of positions [P, X] in order, and the seeds of each, by forwards of whole rows."""
        # The split depends on the request alone, so that its answer does.
        rows_a_forward = max(1, self.max_batch_tokens // max(1, request.num_tokens))
        inputs, targets_BT = request.inputs(), request.targets_BT
        seeds_P = _seeds(request.rows_B, request.counts_B)
        first_position = 0
        for first in range(0, request.num_rows, rows_a_forward):
            rows = slice(first, first + rows_a_forward)
            block = {k: self._placed(v[rows]) for k, v in inputs.items()}
            targets = None if targets_BT is None else self._placed(targets_BT[rows])
            for said_PX in self._model.said(block, targets, wire, request.request_id):
                stop = first_position + len(said_PX)
                yield said_PX, seeds_P[first_position:stop]
                first_position = stop

    def _placed(self, values: np.ndarray) -> Any:
        """On the model's device; texts stay as they are."""
        if values.dtype == object:
            return values
        # .copy(): arrays out of Ray's object store are read-only, which torch warns about.
        return torch.from_numpy(values.copy()).to(self.device)


class _Model(Protocol):
    num_clamped: int
    """Probabilities that were raised to the smallest that has a logarithm here."""

    def said(
        self, inputs: dict[str, Any], targets_BT: Tensor | None, wire: WireFormat, request_id: str
    ) -> Iterator[Tensor]: ...


class _Classifier:
    def __init__(
        self, model: Any, num_labels: int, device: torch.device, dtype: Dtype, allow_pickle: bool
    ) -> None:
        self._model = _frozen(model, device, dtype, allow_pickle)
        self._num_labels = num_labels
        self.num_clamped = 0

    def said(
        self, inputs: dict[str, Any], targets_BT: Tensor | None, wire: WireFormat, request_id: str
    ) -> Iterator[Tensor]:
        output = self._model(**inputs)
        logits_BV = getattr(output, "logits", output).float().cpu()
        self.num_clamped += getattr(output, "num_clamped", 0)
        expected = (len(next(iter(inputs.values()))), self._num_labels)
        if tuple(logits_BV.shape) != expected:
            raise TeacherAnswerError(
                f"request {request_id}: the teacher's logits have shape {list(logits_BV.shape)}, "
                f"expected {list(expected)}: give a teacher with {self._num_labels} classes"
            )
        yield logits_BV


class _LanguageModel:
    num_clamped = 0

    def __init__(
        self, model: Any, num_tokens: int, device: torch.device, dtype: Dtype, allow_pickle: bool
    ) -> None:
        from distill.models.decoder import base_of, has_linear_head, head_of
        from distill.models.language import load_language_model
        from distill.models.packed import keeps_apart

        if isinstance(model, str | Path):
            model = load_language_model(model, dtype, allow_pickle)
        self.model: Any = model.eval().to(device)
        self.judging = Judging(self.model, num_tokens)
        self._base: Any = base_of(model)
        self._head = head_of(model)
        self._is_linear = has_linear_head(model)
        self._keeps_apart = keeps_apart(model)
        self._num_tokens = num_tokens

    def check_linear(self) -> None:
        if not self._is_linear:
            kind = self.model.config.model_type
            raise ModelError(
                f"a {kind} teacher caps or scales its logits, which hidden states do not tell: "
                "give it the wire dense or topk"
            )

    def head(self) -> Head:
        weight_VH, bias_V = self._head.weight.detach(), self._head.bias
        bias_V = None if bias_V is None else bias_V.detach()[: self._num_tokens].clone()
        return Head(weight_VH[: self._num_tokens].clone(), bias_V)

    def said(
        self, inputs: dict[str, Any], targets_BT: Tensor | None, wire: WireFormat, request_id: str
    ) -> Iterator[Tensor]:
        assert targets_BT is not None, "a language model is asked about tokens"
        if not self._keeps_apart and _are_packed(inputs["position_ids"], targets_BT):
            kind = self.model.config.model_type
            raise TeacherAnswerError(
                f"request {request_id}: a {kind} teacher lets packed sequences see each other: set "
                "data.packing: false, or take another teacher"
            )
        if wire.takes == "hidden":
            self.check_linear()
        if not self._is_linear:
            yield self.model(**inputs, use_cache=False).logits[targets_BT][:, : self._num_tokens]
            return
        hidden_PH = self._base(**inputs, use_cache=False).last_hidden_state[targets_BT]
        if wire.takes == "hidden":
            yield hidden_PH
            return
        for block_PH in hidden_PH.split(POSITIONS):
            yield self._head(block_PH)[:, : self._num_tokens]


def _are_packed(position_ids_BT: Tensor, targets_BT: Tensor) -> bool:
    """Whether a sequence that is asked about stands behind another one."""
    return bool(((position_ids_BT == 0).cumsum(1)[targets_BT] > 1).any())


def _seeds(rows_B: np.ndarray, counts_B: np.ndarray) -> np.ndarray:
    """uint64: a number for each position that depends on its row and place alone."""
    first_P = np.repeat(np.cumsum(counts_B) - counts_B, counts_B)
    place_P = np.arange(int(counts_B.sum())) - first_P
    row_P = np.repeat(rows_B, counts_B).astype(np.uint64)
    return mix64(mix64(row_P) + place_P.astype(np.uint64))


def _frozen(model: Any, device: torch.device, dtype: Dtype, allow_pickle: bool) -> Model:
    if isinstance(model, str | Path) and is_pickle(model):
        return ProbabilityModel(load_pickled(model, allow_pickle))
    if isinstance(model, str | Path):
        from distill.models.load import load_classifier

        loaded: Any = load_classifier(model, allow_pickle=allow_pickle, dtype=dtype)
        return loaded.eval().to(device)
    if isinstance(model, nn.Module):
        return model.eval().to(device)
    return ProbabilityModel(model) if hasattr(model, "predict_proba") else model
