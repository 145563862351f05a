"""One teacher in this process: a request in, its answer in a wire out.

Shape suffixes: B rows, T tokens, V classes or vocabulary, H hidden, P positions, M passes (1 but
for a mixture of experts that runs several times), X what a wire encodes of a position.
"""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from distill.config.moe import MoE, OwnRouting, StudentAwareRouter
from distill.data.splits import mix64
from distill.errors import TeacherAnswerError, TrainingError
from distill.models.decoder import base_of
from distill.models.vocabulary import SharedTokens
from distill.records import (
    DeviceOutput,
    ExpertUsage,
    GateGradient,
    GateRequest,
    GateState,
    Head,
    TeacherOutput,
    TeacherRequest,
)
from distill.sampling.generation import write
from distill.sampling.records import DraftRequest, Verdict, WriteRequest, WrittenText
from distill.teachers.language import Block, Found, LanguageModel, as_float, position_seeds
from distill.teachers.probability import ProbabilityModel, is_pickle, load_pickled
from distill.teachers.served import Model
from distill.teachers.shared import Adapted
from distill.variant import Dtype
from distill.wires import DenseWire, WireFormat
from distill.wires.base import are_finite, on_host

Turn = AbstractContextManager[Any]


class TeacherEngine:
    """A frozen model behind :meth:`answer`; the same request always has the same answer."""

    def __init__(
        self,
        model: str | Path | Model | Adapted,
        *,
        num_labels: int,
        device: str = "cpu",
        dtype: Dtype = "float32",
        wire: WireFormat | None = None,
        max_batch_tokens: int = 16384,
        allow_pickle: bool = False,
        num_threads: int | None = None,
        is_language_model: bool = False,
        moe: MoE | None = None,
        shared: SharedTokens | None = None,
        kv_cache_mb: float = math.inf,
    ) -> None:
        """``model`` is a Hugging Face folder, the pickle of an object with ``predict_proba``, or
        the model or object itself (tests, simulated teachers), or a base with one of its adapters.

        ``num_labels``: classes; of a language model, tokens (columns beyond are padding and are cut
        off). ``max_batch_tokens`` is in padded tokens of one forward. ``num_threads`` sets the
        threads of the whole process; None leaves them. ``moe``: which experts of a language model
        are used, unless a request names others. ``shared``: of a language model that has other
        tokens than the student, which count. ``kv_cache_mb``: of a language model, 10⁶ bytes of
        key-value caches kept between the requests of a text (distill/sampling/verification.py).
        Raises ModelError for an unusable folder.
        """
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        self.device = torch.device(device)
        self.wire = wire or DenseWire()
        self.max_batch_tokens = max_batch_tokens
        self.num_labels = num_labels
        self._moe: MoE = moe or OwnRouting()
        self.num_forwards = 0
        """Finished ones, each token step of generation and verification too: tells a slow model
        from one that hangs. Adapters on one base count those of all."""
        self._speaking: Callable[[], AbstractContextManager[None]] = nullcontext
        self._encoder = ThreadPoolExecutor(1, "teacher-encoder")  # its thread starts when needed
        if isinstance(model, Adapted):
            self._speaking, model = model.speaking, model.base.model
        self._model: _Classifier | LanguageModel
        if is_language_model:
            with self._speaking():
                self._model = LanguageModel(
                    model,
                    num_labels,
                    self.device,
                    dtype,
                    allow_pickle,
                    self._moe,
                    shared,
                    kv_cache_mb * 1e6,
                )
            if self.wire.takes == "hidden":
                self._model.check_linear()
            base_of(self._model.model).register_forward_hook(self._count)
        else:
            self._model = _Classifier(model, num_labels, self.device, dtype, allow_pickle)

    def answer(self, request: TeacherRequest, turn: Turn | None = None) -> TeacherOutput:
        """All rows of the request, in its order; raises TeacherAnswerError, never a wrong shape.

        ``turn``: held while the model computes. What is left of encoding and of copying to the host
        is done after it, while the next request is computed.
        """
        payload = _Payload(int(request.counts_B.sum()), torch.device("cpu"), may_share=True)
        return on_host(self._answer(request, payload, turn))

    def answer_on_device(self, request: TeacherRequest, turn: Turn | None = None) -> DeviceOutput:
        """The same, all of it on the model's device."""
        # Not shared: of a view the model's whole output would be registered for the transfer.
        payload = _Payload(int(request.counts_B.sum()), self.device, may_share=False)
        return self._answer(request, payload, turn)

    @torch.inference_mode(False)  # else moved weights could have no gradients, which gates need
    def offload(self) -> None:
        """Move the model to host memory, and drop its key-value caches. Not during a request."""
        self._model.move(torch.device("cpu"))
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode(False)
    def restore(self) -> None:
        """Move the model back, bit-identical; raises torch.OutOfMemoryError."""
        self._model.move(self.device)

    @property
    def is_reentrant(self) -> bool:
        """Whether several threads may call :meth:`answer` at once: of a language model on the CPU
        whose forward changes nothing."""
        is_alone = self._speaking is nullcontext and self.device.type == "cpu"
        return is_alone and isinstance(self._model, LanguageModel) and self._model.is_reentrant

    @torch.inference_mode()
    def _answer(
        self, request: TeacherRequest, payload: "_Payload", turn: Turn | None
    ) -> DeviceOutput:
        wire = request.wire or self.wire
        overlaps = turn is not None and self.device.type == "cpu"
        encoded: Future[None] | None = None
        last: _Said | None = None
        compute_s, usage, num_found = 0.0, None, 0
        with turn or nullcontext(), self._speaking():
            found = self._model.found
            found.num_clamped, found.stats = 0, None
            started = time.perf_counter()
            for said in self._said(request, wire):
                is_finite = are_finite(said.said_MPX)  # waits for a GPU
                compute_s += time.perf_counter() - started
                if not is_finite:
                    raise TeacherAnswerError(
                        f"request {request.request_id}: the teacher's logits hold NaN or infinity: "
                        "check its weights, or serve it in float32"
                    )
                if encoded is not None:
                    encoded.result()  # one block at a time: [P, V] is never whole
                if last is not None:  # forwards without positions follow
                    self._encode(last, wire, payload)
                    last = None
                num_found += said.said_MPX.shape[1]
                if not overlaps:
                    self._encode(said, wire, payload)
                elif num_found == payload.num_positions:
                    last = said
                else:
                    encoded = self._encoder.submit(self._encode, said, wire, payload)
                if said.usage is not None:
                    usage = said.usage if usage is None else usage + said.usage
                started = time.perf_counter()
            num_clamped, stats = found.num_clamped, found.stats
            payload.mark()
        assert num_found == payload.num_positions
        if encoded is not None:
            encoded.result()
        if last is not None:
            self._encode(last, wire, payload)
        about = TeacherOutput(
            request.request_id,
            request.rows_B,
            np.empty((0, 0), np.uint8),
            wire.name,
            compute_s,
            num_clamped,
            usage,
            stats,
        )
        return DeviceOutput(about, payload.whole(), payload.num_positions)

    @torch.inference_mode()  # it may run in another thread
    def _encode(self, said: "_Said", wire: WireFormat, payload: "_Payload") -> None:
        """Of M forwards, concatenated."""
        passes = [
            wire.encode(said_PX, _of_pass(said.seeds_P, m))
            for m, said_PX in enumerate(said.said_MPX)
        ]
        payload.add(passes[0] if len(passes) == 1 else torch.cat(passes, 1))

    @torch.inference_mode()
    def judge(self, request: DraftRequest) -> Verdict:
        """Of a language model: which drafts pass, and what comes instead of the first other."""
        speaker = self._speaker
        with self._speaking(), speaker.as_it_teaches(self._moe), _finite(request.request_id):
            return speaker.judging.judge(request)

    @torch.inference_mode()
    def write(self, request: WriteRequest) -> WrittenText:
        """Of a language model: how it continues each prompt."""
        speaker = self._speaker
        with self._speaking(), speaker.as_it_teaches(self._moe), _finite(request.request_id):
            started = time.perf_counter()
            found = write(
                speaker.model,
                self.num_labels,
                [prompt.tolist() for prompt in request.prompts],
                request.limits,
                request.ends,
                request.seeds_B,
                request.decoding,
            )
        texts = tuple(np.array(text, np.int64) for text in found.texts)
        return WrittenText(request.request_id, texts, time.perf_counter() - started)

    def gate(self) -> GateState:
        """A mixture's gates as its folder has them: version 0."""
        with self._speaking():
            return self._speaker.first_gate()

    def gate_gradient(self, request: GateRequest) -> GateGradient:
        """A student-aware router's; the same request always has the same answer, as of
        :meth:`answer`. Raises TeacherAnswerError where the student's logits do not fit."""
        with self._speaking():
            return self._gate_gradient(request)

    def _gate_gradient(self, request: GateRequest) -> GateGradient:
        asked, model = request.request, self._speaker
        moe = asked.moe or self._moe
        assert isinstance(moe, StudentAwareRouter), "only its gates learn"
        shape, expected = request.student_PV.shape, (int(asked.counts_B.sum()), self.num_labels)
        if shape != expected:
            raise TeacherAnswerError(
                f"request {asked.request_id}: the student's logits have shape {list(shape)}, "
                f"expected {list(expected)}"
            )
        started = time.perf_counter()
        shares, first = [], 0
        for block in self._blocks(asked, moe):
            assert block.targets_BT is not None
            stop = first + int(block.targets_BT.sum())
            student_PV = as_float(request.student_PV[first:stop])
            shares.append(model.gate_gradient(block, asked, moe, student_PV, request.temperature))
            first = stop
        return GateGradient(
            asked.request_id,
            torch.stack([share.gradient_G for share in shares]).sum(0).numpy(),
            first,
            sum(share.kl_sum for share in shares),
            sum(share.balance_sum for share in shares),
            time.perf_counter() - started,
        )

    @property
    def _speaker(self) -> LanguageModel:
        assert isinstance(self._model, LanguageModel)
        return self._model

    def head(self) -> Head:
        """A language model's output layer, on the CPU, cut to its real tokens."""
        return self._speaker.head().to("cpu")

    def _said(self, request: TeacherRequest, wire: WireFormat) -> Iterator["_Said"]:
        """Blocks of positions in order, by forwards of whole rows."""
        seeds_P = position_seeds(request.rows_B, request.counts_B)
        moe = request.moe or self._moe
        first = 0
        for block in self._blocks(request, moe):
            for said_MPX, usage in self._model.said(block, request, wire, moe):
                stop = first + said_MPX.shape[1]
                yield _Said(said_MPX, seeds_P[first:stop], usage)
                first = stop
            if isinstance(self._model, _Classifier):
                self._count()

    def _count(self, *_: object) -> None:
        """After a forward: of a language model, as a hook on its decoder."""
        self.num_forwards += 1

    def _blocks(self, request: TeacherRequest, moe: MoE) -> Iterator[Block]:
        # The split depends on the request alone, so that its answer does.
        tokens_a_row = max(1, request.num_tokens * moe.num_passes)
        rows_a_forward = max(1, self.max_batch_tokens // tokens_a_row)
        inputs, targets_BT = request.inputs(), request.targets_BT
        for first in range(0, request.num_rows, rows_a_forward):
            rows = slice(first, first + rows_a_forward)
            yield Block(
                {k: self._placed(v[rows]) for k, v in inputs.items()},
                None if targets_BT is None else self._placed(targets_BT[rows]),
                request.rows_B[rows],
            )

    def _placed(self, values: np.ndarray) -> Any:
        """On the model's device; texts stay as they are."""
        if values.dtype == object:
            return values
        # .copy(): arrays out of Ray's object store are read-only, which torch warns about.
        return torch.from_numpy(values.copy()).to(self.device)


class _Said(NamedTuple):
    said_MPX: Tensor
    seeds_P: np.ndarray
    usage: ExpertUsage | None


class _Payload:
    """Encoded blocks of positions, put together on a device."""

    def __init__(self, num_positions: int, where: torch.device, may_share: bool) -> None:
        """``may_share``: an answer of a single block may be a view of what the model computed."""
        self.num_positions = num_positions
        self._where = where
        self._may_share = may_share
        self._filled = 0
        self._payload_PX: Tensor | None = None
        self._comes_from_gpu = False
        self._copied: torch.cuda.Event | None = None

    def add(self, encoded_NX: Tensor) -> None:
        is_whole = 0 < self.num_positions == len(encoded_NX)
        is_here = encoded_NX.device == self._where and encoded_NX.is_contiguous()
        if is_whole and is_here and self._may_share:
            self._payload_PX = encoded_NX
        else:
            self._copy(encoded_NX)
        self._filled += len(encoded_NX)

    def _copy(self, encoded_NX: Tensor) -> None:
        self._comes_from_gpu = encoded_NX.is_cuda and self._where.type == "cpu"
        if self._payload_PX is None:
            self._payload_PX = torch.empty(
                (max(1, self.num_positions), encoded_NX.shape[1]),
                dtype=encoded_NX.dtype,
                device=self._where,
                pin_memory=self._comes_from_gpu,
            )
        here_NX = self._payload_PX[self._filled : self._filled + len(encoded_NX)]
        here_NX.copy_(encoded_NX, non_blocking=self._comes_from_gpu)

    def mark(self) -> None:
        """Nothing more is computed on a GPU: what is queued there later is not waited for."""
        if self._comes_from_gpu:
            self._copied = torch.cuda.Event()
            self._copied.record()

    def whole(self) -> Tensor:
        assert self._payload_PX is not None and self._filled == self.num_positions
        if self._copied is not None:
            self._copied.synchronize()
        return self._payload_PX


class _Classifier:
    def __init__(
        self, model: Any, num_labels: int, device: torch.device, dtype: Dtype, allow_pickle: bool
    ) -> None:
        self._model = _frozen(model, device, dtype, allow_pickle)
        self._num_labels = num_labels
        self.found = Found()

    def move(self, device: torch.device) -> None:
        if isinstance(self._model, nn.Module):  # others are not on a device
            self._model.to(device)

    def said(
        self, block: Block, request: TeacherRequest, wire: WireFormat, moe: MoE
    ) -> Iterator[tuple[Tensor, None]]:
        inputs = block.inputs
        output = self._model(**inputs)
        logits_BV = getattr(output, "logits", output).float()
        self.found.num_clamped += getattr(output, "num_clamped", 0)
        expected = (len(next(iter(inputs.values()))), self._num_labels)
        if tuple(logits_BV.shape) != expected:
            raise TeacherAnswerError(
                f"request {request.request_id}: the teacher's logits have shape "
                f"{list(logits_BV.shape)}, expected {list(expected)}: give a teacher with "
                f"{self._num_labels} classes"
            )
        yield logits_BV[None], None


@contextmanager
def _finite(request_id: str) -> Iterator[None]:
    try:
        yield
    except TrainingError as error:  # of a model that writes, which here is the teacher
        raise TeacherAnswerError(f"request {request_id}: {error}") from None


def _of_pass(seeds_P: np.ndarray, number: int) -> np.ndarray:
    """Each pass draws its own samples, the first those of a teacher with one."""
    return seeds_P if number == 0 else mix64(seeds_P ^ np.uint64(number))


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
