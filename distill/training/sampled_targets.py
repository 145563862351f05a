"""Batches whose text is written as training goes, with what the teachers say about it.

A source of targets around the teachers' stream: before each step, or some steps ahead of it, the
student, or a teacher, writes on from the prompts of the data set's batch; then the teachers are
queried for exactly those tokens. Nothing is cached: the next text differs. Shape suffixes:
B rows, b those still written.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from distill.config.sampling import (
    Generated,
    Mixed,
    OnPolicy,
    Speculative,
    StudentText,
    TeacherText,
)
from distill.data.batches import BatchSource
from distill.errors import CheckpointError
from distill.models.decoder import head_of
from distill.records import Batch, Step
from distill.sampling.draw import STUDENT, row_seeds, uniforms
from distill.sampling.generation import GeneratedBatch, Verifier, write
from distill.sampling.records import GenerationRequest
from distill.sampling.rows import SampledRow, as_batch, rows_of
from distill.teachers.client import TeacherClient
from distill.teachers.waiting import Wait, in_thread, until_done
from distill.training.gate_training import GateTraining
from distill.training.loop import Engine, NoTeachers
from distill.training.speculation import TeacherVerifier, at_once, verify_each

Result = TypeVar("Result")
OF_STEP = np.array([-1], np.int64)
"""Instead of a row's id: what is drawn once a step."""


class TargetStream(Protocol):
    def feed(
        self, batches: BatchSource, start: int, stop: int, wait: Wait = until_done
    ) -> Iterator[Step]: ...
    def timings(self) -> dict[str, float]: ...
    def computed(self, name: str, seconds: float) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class GenerationSettings:
    """The inputs of a fit's sampling."""

    sampling: Generated
    generators_of: Callable[[np.ndarray], list[str]]
    """Of row ids: the teacher that verifies or generates, if any."""
    num_tokens: int
    """Of the vocabulary that student and teacher share."""
    max_length: int
    ends: tuple[int, ...]
    pad_id: int
    seed: int
    num_steps: int
    temperature_at: Callable[[int], float]
    """Of a step's softmax, teacher's and student's."""
    session: str
    """A prefix that no other process has."""
    queries_teachers: bool = True
    """False where the loss reads no distributions (kd.alpha 0)."""


class SampledTargets:
    """See the module. ``stream`` must ask as many steps ahead as text is stale."""

    def __init__(
        self,
        settings: GenerationSettings,
        client: TeacherClient,
        stream: TargetStream,
        engine: Engine,
        gates: Sequence[GateTraining] = (),
    ) -> None:
        self._settings = settings
        self._gates = tuple(gates)
        self._client = client
        self._stream = stream
        self._engine = engine
        self._texts: dict[int, list[int]] = {}  # of a teacher that writes: once for each row
        # What is not yet trained on, by step and row.
        self._ahead: dict[int, dict[int, list[int]]] = {}
        self._counts = _Counts()
        self._wait: Wait = until_done
        self._gates_before: dict[str, Any] | None = None  # of the step that they are trained for

    def feed(
        self, batches: BatchSource, start: int, stop: int, wait: Wait = until_done
    ) -> Iterator[Step]:
        self._wait = wait
        sampling = self._settings.sampling
        staleness = sampling.staleness if isinstance(sampling, StudentText) else 0
        asked = self._stream if self._settings.queries_teachers else NoTeachers()
        generated = _Steps(stop)
        answered = asked.feed(generated, start, stop, wait)
        coming = start
        for step in range(start, stop):
            while coming < min(step + staleness + 1, stop):
                generated.steps[coming] = self._write(batches, coming)
                coming += 1
            ready = next(answered)  # asks about what is new first
            del generated.steps[step], self._ahead[step]
            self._gates_before = None
            self._counts.trained(min(step, staleness) if self._is_students(step) else None)
            yield ready

    def _write(self, batches: BatchSource, step: int) -> list[Batch]:
        """A step's micro-batches with their text, which a resumed fit may have already."""
        began = time.perf_counter()
        parts = batches.at(step)
        rows = {k: v for part in parts for k, v in rows_of(part).items()}
        texts = self._ahead[step] if step in self._ahead else self._new_texts(rows, step)
        self._ahead[step] = {row: texts[row] for row in rows}
        rows = {row: SampledRow(old.prompt, texts[row]) for row, old in rows.items()}
        parts = self._counted([as_batch(part, rows, self._settings.pad_id) for part in parts])
        self._counts.generate_s += time.perf_counter() - began
        if self._gates and self._is_students(step):
            # A checkpoint that is written before the answers are there repeats their step.
            self._gates_before = self._state_of_gates()
            temperature = self._settings.temperature_at(step)
            for gate in self._gates:
                gate.step(parts, self._students_logits, step, temperature, self._waited)
        return parts

    def _waited(self, call: Callable[[], Result]) -> Result:
        """What ``call`` returns, which waits for a teacher; every rank calls this."""
        return self._wait(in_thread(call), self._client.away)

    def timings(self) -> dict[str, float]:
        """The stream's, and since the last call: seconds of writing and their share of all, tokens
        written, the share of drafts tested that passed, tokens for each sequence and teacher's
        forward, the tokens of a row that was written, the share of those cut at their limit, of all
        rows the share that the student wrote, and of its text that was trained on the mean age in
        updates. NaN where there is nothing to tell."""
        counts, self._counts = self._counts, _Counts()
        metrics = {
            "sampling.generate_s": counts.generate_s,
            "sampling.generate_rate": counts.generate_s
            / max(self._counts.began - counts.began, 1e-9),
            "sampling.new_tokens": float(counts.tokens),
            "sampling.tokens_per_row": _per(counts.tokens, counts.generated),
            "sampling.cut_rate": _per(counts.cut, counts.generated),
        }
        if isinstance(self._settings.sampling, StudentText):
            metrics["sampling.staleness"] = _per(counts.ages, counts.student_steps)
        if isinstance(self._settings.sampling, Speculative):
            metrics["sampling.acceptance_rate"] = _per(counts.passed, counts.tested)
            metrics["sampling.tokens_per_call"] = _per(counts.verified_tokens, counts.calls)
        if isinstance(self._settings.sampling, Mixed):
            metrics["sampling.student_rate"] = _per(counts.generated, counts.rows)
        for gate in self._gates:
            metrics |= gate.timings()
        return self._stream.timings() | metrics

    def flush(self) -> None:
        self._stream.flush()

    def state_dict(self) -> dict[str, Any]:
        """This rank's text that is not yet trained on, and the gates that learn, by teacher, which
        are equal on all ranks; goes into every checkpoint."""
        return {"ahead": self._ahead, "gates": self._gates_before or self._state_of_gates()}

    def _state_of_gates(self) -> dict[str, Any]:
        return {gate.teacher: gate.state_dict() for gate in self._gates}

    def load_state_dicts(self, saved: Sequence[dict[str, Any]]) -> None:
        """Of all ranks that there were: a row's text goes to whoever has the row now.

        Raises CheckpointError where gates learn and none were kept.
        """
        if self._gates and not saved:
            raise CheckpointError(
                "the checkpoint has no teacher gates (beside-0.pt): it was written by an older "
                "version; start again with a new output"
            )
        for share in saved:
            for step, texts in share["ahead"].items():
                self._ahead.setdefault(step, {}).update(texts)
        for gate in self._gates:
            gate.load_state_dict(saved[0]["gates"][gate.teacher])

    def close(self) -> None:
        self._stream.close()

    def _counted(self, parts: list[Batch]) -> list[Batch]:
        """With the positions of the whole global batch, as it has been written."""
        local = sum(int(p.targets_BT.sum()) for p in parts if p.targets_BT is not None)
        count = torch.tensor([float(local)], dtype=torch.float64, device=self._engine.device)
        total = int(self._engine.reduce(count).item())
        return [replace(part, num_valid=total, num_labelled=total) for part in parts]

    def _is_students(self, step: int) -> bool:
        """Whether it is the student that writes a step's text."""
        sampling = self._settings.sampling
        if not isinstance(sampling, Mixed):
            return isinstance(sampling, StudentText)
        chance = uniforms(row_seeds(self._settings.seed, step, OF_STEP), np.zeros(1), STUDENT)
        return bool(chance[0] < sampling.student_share)

    def _new_texts(self, rows: dict[int, SampledRow], step: int) -> dict[int, list[int]]:
        sampling = self._settings.sampling
        if isinstance(sampling, TeacherText):
            texts = self._waited(lambda: self._teachers_texts(rows, sampling))
        elif self._is_students(step):
            assert isinstance(sampling, OnPolicy | Mixed | Speculative)
            seeds_B = row_seeds(self._settings.seed, step, np.array(list(rows), np.int64))
            texts = self._students_texts(rows, seeds_B, step, sampling)
        else:
            texts = [row.text for row in rows.values()]
        self._counts.rows += len(rows)
        return dict(zip(rows, texts, strict=True))

    def _limits(self, rows: dict[int, SampledRow]) -> list[int]:
        room = [self._settings.max_length - len(row.prompt) for row in rows.values()]
        most = self._settings.sampling.max_new_tokens
        return room if most is None else [min(most, one) for one in room]

    def _students_texts(
        self,
        rows: dict[int, SampledRow],
        seeds_B: np.ndarray,
        step: int,
        sampling: OnPolicy | Mixed | Speculative,
    ) -> list[list[int]]:
        prompts = [row.prompt for row in rows.values()]
        verify = None
        num_drafts = 1
        if isinstance(sampling, Speculative):
            num_drafts = sampling.drafts
            if prompts:  # a rank without rows drafts with the others, and asks nobody
                verify = self._verify(rows, seeds_B, step, sampling)
        module: Any = self._engine.module
        found = write(
            module.student,
            self._settings.num_tokens,
            prompts or [[0]],
            self._limits(rows) or [1],
            self._settings.ends,
            seeds_B if prompts else np.zeros(1, np.uint64),
            sampling.decoding,
            num_drafts,
            verify,
            self._is_any_rank_generating,
            self._waited if isinstance(sampling, Speculative) else _at_once,
        )
        if not prompts:
            return []
        self._counts.add(found)
        return found.texts

    @torch.no_grad()
    def _students_logits(self, batch: Batch) -> Tensor:
        """[P, V] at the batch's positions, as the student is evaluated."""
        module: Any = self._engine.module
        was_training = module.training
        module.eval()
        try:
            hidden_PH, _ = module.positions(batch.to(self._engine.device))
            return head_of(module.student)(hidden_PH)[:, : self._settings.num_tokens]
        finally:
            module.train(was_training)

    def _is_any_rank_generating(self, is_generating: bool) -> bool:
        if self._engine.world_size == 1:
            return is_generating
        flag = torch.tensor([float(is_generating)], device=self._engine.device)
        return bool(self._engine.reduce(flag).item())

    def _verify(
        self, rows: dict[int, SampledRow], seeds_B: np.ndarray, step: int, sampling: Speculative
    ) -> Verifier:
        prompts = [np.array(row.prompt) for row in rows.values()]
        top_k = sampling.top_k_at(step / max(1, self._settings.num_steps - 1))
        verifiers: list[tuple[np.ndarray, Verifier]] = []
        for teacher, mine_N in self._generators(rows).items():
            verify = TeacherVerifier(
                self._client,
                self._stream.computed,
                teacher,
                self._settings.session,
                step,
                tuple(prompts[place] for place in mine_N),
                seeds_B[mine_N],
                sampling,
                top_k,
                self._settings.num_tokens,
            )
            verifiers.append((mine_N, verify))
        return verify_each(verifiers)

    def _generators(self, rows: Iterable[int]) -> dict[str, np.ndarray]:
        """The verifying or generating teachers, and the indices of their ``rows``, ascending."""
        names = self._settings.generators_of(np.array(list(rows), np.int64))
        return {
            name: np.array([place for place, own in enumerate(names) if own == name])
            for name in dict.fromkeys(names)
        }

    def _teachers_texts(
        self, rows: dict[int, SampledRow], sampling: TeacherText
    ) -> list[list[int]]:
        missing = [row for row in rows if row not in self._texts]
        asked = [
            (teacher, {missing[place]: rows[missing[place]] for place in mine_N})
            for teacher, mine_N in self._generators(missing).items()
        ]
        for texts in at_once([lambda one=one: self._text_of(*one, sampling) for one in asked]):
            self._texts |= texts
            new = list(texts.values())
            self._counts.add(GeneratedBatch(new, [text[-1] in self._settings.ends for text in new]))
        return [self._texts[row] for row in rows]

    def _text_of(
        self, teacher: str, rows: dict[int, SampledRow], sampling: TeacherText
    ) -> dict[int, list[int]]:
        ids_N = np.array(list(rows), np.int64)
        request = GenerationRequest(
            f"{self._settings.session}/{ids_N[0]}",
            tuple(np.array(row.prompt) for row in rows.values()),
            tuple(self._limits(rows)),
            self._settings.ends,
            row_seeds(self._settings.seed, 0, ids_N),  # a row's text is one for all epochs
            sampling.decoding,
        )
        found = self._client.call(teacher, request)
        request.check(found, self._settings.num_tokens)
        self._stream.computed(teacher, found.compute_s)
        return dict(zip(rows, [text.tolist() for text in found.texts], strict=True))


@dataclass
class _Counts:
    began: float = field(default_factory=time.perf_counter)
    generate_s: float = 0.0
    rows: int = 0
    generated: int = 0  # of them, and their tokens
    tokens: int = 0
    cut: int = 0
    tested: int = 0
    passed: int = 0
    calls: int = 0
    verified_tokens: int = 0
    student_steps: int = 0  # trained on text of the student's
    ages: int = 0  # of that text, in updates

    def trained(self, age: int | None) -> None:
        """``age`` None: on text that is not the student's."""
        if age is not None:
            self.student_steps += 1
            self.ages += age

    def add(self, batch: GeneratedBatch) -> None:
        num_tokens = sum(map(len, batch.texts))
        self.generated += len(batch.texts)
        self.tokens += num_tokens
        self.cut += batch.has_ended.count(False)
        self.tested += batch.num_tested
        self.passed += batch.num_passed
        self.calls += batch.num_calls
        self.verified_tokens += num_tokens if batch.num_calls else 0


def _at_once(call: Callable[[], Result]) -> Result:
    return call()


def _per(total: float, count: int) -> float:
    return total / count if count else math.nan


@dataclass(frozen=True)
class _Steps:
    """Those that are not yet trained on, as a source of batches. Nothing is kept of an epoch, so
    all steps are one."""

    steps_per_epoch: int
    steps: dict[int, list[Batch]] = field(default_factory=dict)

    def at(self, step: int) -> list[Batch]:
        return self.steps[step]
