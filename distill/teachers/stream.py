"""Batches in, batches with the teachers' outputs out: in order, and requested ahead of the student.

The answers do not depend on timing. A request is made of a step's rows alone; a row is asked for
at most once an epoch; and no epoch is started before every rank has written what it received in the
one before, so that with a cache the second epoch asks nothing, whoever gets the rows.

Shape suffixes: B rows, N the rows of one teacher, K teachers, V classes.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from inspect import GEN_CLOSED, getgeneratorstate
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from distill.aggregation import Aggregation, UniformMean
from distill.data.batches import BatchSource
from distill.data.splits import seed_of
from distill.records import Answers, GateState, Head, RoutingInputs, Step, fields_of
from distill.sampling.rows import shown
from distill.teachers.cache import Cache, NoCache
from distill.teachers.client import TeacherClient
from distill.teachers.joining import (
    Joining,
    Payload,
    RowJoining,
    TokenJoining,
    in_order,
    logits_of,
    spread,
)
from distill.teachers.meter import Meter
from distill.teachers.output_quality import Health
from distill.teachers.requests import HeadRequest, TeacherRequest
from distill.teachers.served import ServedTeacher
from distill.teachers.thread_order import RequestOrder, all_results
from distill.teachers.waiting import Wait, in_thread, until_done


class TeacherTokens(Protocol):
    """The rows as one teacher is shown them; see distill/data/inputs.py."""

    def lengths(self, rows: Any) -> np.ndarray: ...
    def padded(self, rows: Any) -> Any: ...


@runtime_checkable
class AlignedTokens(TeacherTokens, Protocol):
    """Of a teacher with another tokenizer; see distill/data/alignment.py."""

    def aligned(self, rows: np.ndarray) -> np.ndarray: ...


class TeacherStream:
    """The source of targets that queries teachers. Also a context manager; see :meth:`close`."""

    def __init__(
        self,
        client: TeacherClient,
        teachers: Sequence[ServedTeacher],
        tokens: Mapping[str, TeacherTokens] | None,
        *,
        router: ServedTeacher | None = None,
        cache: Cache | None = None,
        aggregation: Aggregation | None = None,
        in_flight: int = 4,
        boundary: Callable[[], None] | None = None,
        domain_teachers_of: Callable[[np.ndarray], np.ndarray] | None = None,
        positions_of: Callable[[Any], np.ndarray] | None = None,
        num_ranks: int = 1,
        seed: int = 0,
    ) -> None:
        """``teachers``: in the order of K and of the router's classes.

        ``tokens``: by name, the rows as each teacher and the router are shown them; None: they are
        shown the batches themselves, which were written while training. ``cache``: outputs that
        change are never kept. ``aggregation`` None queries all. ``in_flight``: steps requested
        ahead of this one. ``boundary``: a barrier over all ranks. ``domain_teachers_of``: of row
        ids, the index of the teacher named like the row's domain, or -1; None: no teacher has a
        domain. ``positions_of``: of language models, the student's positions of each row of a part.
        ``num_ranks``: who share the replicas. ``seed``: of what teachers draw.
        """
        self._teachers = tuple(teachers)
        self.names = tuple(teacher.name for teacher in teachers)
        self._router = router
        self._client = client
        self._tokens = tokens
        self._seed = seed
        served = (*self._teachers, router) if router else self._teachers
        self._served = {teacher.name: teacher for teacher in served}
        self._joining: Joining = RowJoining(self._teachers)
        if positions_of is not None:
            self._joining = TokenJoining(positions_of, self._aligned())
        self._cache = cache if cache is not None else NoCache()
        self._gates: dict[str, GateState] = {}
        self._aggregation: Aggregation = aggregation or UniformMean()
        self._domain_teachers_of = domain_teachers_of or (lambda rows_B: np.full(len(rows_B), -1))
        self._in_flight = in_flight
        self._boundary = boundary or (lambda: None)
        self._meter = Meter(served, num_ranks)
        self._health = Health(is_data=tokens is not None)
        self._feeds: list[Generator[Any, None, None]] = []

    def _aligned(self) -> dict[int, Callable[[np.ndarray], np.ndarray]]:
        """By place in K, of teachers with another tokenizer; see TokenJoining."""
        shown = [self._tokens[name] if self._tokens else None for name in self.names]
        return {k: rows.aligned for k, rows in enumerate(shown) if isinstance(rows, AlignedTokens)}

    def feed(
        self, batches: BatchSource, start: int, stop: int, wait: Wait = until_done
    ) -> Generator[Step, None, None]:
        """Steps ``start`` to ``stop``, each with its answers; ``batches.at`` runs in threads.

        At each end of an epoch all ranks meet, so every rank must consume the same steps. Several
        feeds may be open at once. What fails in a thread is raised here, as itself, at its step.
        """
        return self._keep(self._epochs(batches, start, stop, wait))

    def fill(self, rows: Sequence[int] | np.ndarray | range, batch_size: int = 64) -> None:
        """Have the cache know the answers about these rows; no boundary."""
        source, _ = self._by_length(np.asarray(rows, np.int64), batch_size)
        for _ in self._keep(self._ahead(source, 0, len(source.blocks))):
            pass  # a step's answers are let go of before the next one is taken
        self._cache.flush()

    def heads(self) -> dict[str, Head]:
        """The output layers of teachers whose wires send hidden states; from the cache, if there.

        Sent once for each teacher and cache folder, and mapped from there by all ranks of a node;
        equal ones, as of adapters on one base, are held once.
        """
        found: dict[str, Head] = {}
        for teacher in self._teachers:
            if teacher.wire.takes == "hidden":
                name = teacher.name
                head = self._cache.head(name, partial(self._requested_head, name))
                known = (other for other in found.values() if other.equals(head))
                found[name] = next(known, head)
        return found

    def _requested_head(self, name: str) -> Head:
        return until_done(
            in_thread(partial(self._client.call, name, HeadRequest())), self._client.away
        )

    def _cache_of(self, teacher: ServedTeacher) -> Cache:
        return NoCache() if teacher.moe.changes else self._cache

    def request(
        self, name: str, request_id: str, part: Any, rows_N: np.ndarray, step: int = 0
    ) -> TeacherRequest:
        """The request to a teacher for these rows of a part; it draws again at each ``step``."""
        teacher = self._served[name]
        block: Any = (
            shown(part, rows_N) if self._tokens is None else self._tokens[name].padded(rows_N)
        )
        return TeacherRequest(
            request_id,
            rows_N,
            **fields_of(block),
            targets_BT=getattr(block, "targets_BT", None),
            wire=teacher.wire,
            moe=teacher.moe,
            seed=seed_of(f"{self._seed}/{name}/{step}"),
            gate=self._gates.get(name),
        )

    def take_gate(self, name: str, gate: GateState) -> None:
        """The gates that a student-aware router uses from now on."""
        self._gates[name] = gate

    def _by_length(self, rows_N: np.ndarray, batch_size: int) -> tuple["_Blocks", np.ndarray]:
        """Rows of like length together: padding is most of the work otherwise."""
        assert self._tokens is not None, "text generated while training is requested at once"
        by_length = np.argsort(self._tokens[self.names[0]].lengths(rows_N), kind="stable")
        starts = range(0, len(rows_N), batch_size)
        return _Blocks([rows_N[by_length[i : i + batch_size]] for i in starts]), by_length

    def timings(self) -> dict[str, float]:
        """Since the last call, for each teacher (the router too), ``teacher.<name>.…``:

        wait_s the student waited, charged to the last teacher to answer; rows and bytes received;
        cached_rows; compute_s in its forwards; idle_rate, the share of the time since the last call
        (or the start) that its replicas did not compute in; clamped probabilities (predict_proba
        teachers); requests and retries; of mixtures of experts silent_mass_rate,
        busiest_expert_rate and idlest_expert_rate of what was not cached (see ExpertUsage); of
        language models, on a sample of what was not cached, perplexity on the tokens that follow,
        and mass_outside, the probability of tokens that the student does not share.
        ``stream.wait_s`` is the whole wait, ``stream.queue_depth`` the mean number of steps ready
        when one was needed.
        """
        return self._meter.read() | self._client.stats()

    def computed(self, name: str, seconds: float) -> None:
        """Another request than for answers took a teacher so long: counts with them."""
        self._meter.received(name, compute_s=seconds)

    def flush(self) -> None:
        """Write the outputs received so far (for instance with each checkpoint)."""
        self._cache.flush()

    def close(self) -> None:
        """End every feed, cancel what is outstanding, write and close the cache."""
        for feed in list(self._feeds):
            feed.close()
        self._cache.close()

    def __enter__(self) -> "TeacherStream":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _keep(self, feed: Generator[Step, None, None]) -> Generator[Step, None, None]:
        self._feeds = [f for f in self._feeds if getgeneratorstate(f) != GEN_CLOSED]
        self._feeds.append(feed)
        return feed

    def _epochs(
        self, batches: BatchSource, start: int, stop: int, wait: Wait
    ) -> Generator[Step, None, None]:
        while start < stop:
            end_of_epoch = (start // batches.steps_per_epoch + 1) * batches.steps_per_epoch
            yield from self._ahead(batches, start, min(stop, end_of_epoch), wait)
            self._cache.flush()
            if stop >= end_of_epoch:
                self._boundary()  # all ranks have flushed
                self._cache.refresh()
            start = end_of_epoch

    def _ahead(
        self, batches: Any, start: int, stop: int, wait: Wait = until_done
    ) -> Generator[Step, None, None]:
        """Answer steps in threads, ``in_flight`` ahead of the one yielded."""
        window = self._in_flight + 1  # those ahead, and the one in hand
        cancelled = threading.Event()
        turns = (RequestOrder(start, cancelled), RequestOrder(start, cancelled))
        # Two pools: a step waits for its asks, so they must never queue behind other steps.
        steps = ThreadPoolExecutor(window, "stream-step")
        asks = ThreadPoolExecutor(window * (len(self.names) + 1), "stream-ask")
        pending: deque[Future[_Answered]] = deque()
        upcoming = iter(range(start, stop))

        def refill(num_steps: int) -> None:
            while len(pending) < num_steps and (step := next(upcoming, None)) is not None:
                pending.append(steps.submit(self._answer, batches, step, asks, turns, cancelled))

        try:
            refill(window)
            while pending:
                num_ready = sum(future.done() for future in pending)
                queried_at = time.perf_counter()
                answered = wait(pending.popleft(), self._client.away)
                self._meter.waited(time.perf_counter() - queried_at, answered.slowest, num_ready)
                refill(self._in_flight)
                yield answered.step
                refill(window)
        finally:
            cancelled.set()
            for pool in (steps, asks):
                pool.shutdown(wait=True, cancel_futures=True)

    def _answer(
        self,
        batches: Any,
        step: int,
        asks: ThreadPoolExecutor,
        turns: tuple[RequestOrder, RequestOrder],
        cancelled: threading.Event,
    ) -> "_Answered":
        """One step in two rounds: the router for all parts, then the experts for all parts."""
        parts = batches.at(step)
        finish: dict[str, float] = {}

        def query_all(
            order: RequestOrder, queries: list[tuple[ServedTeacher, int, np.ndarray]]
        ) -> list[Payload]:
            # One event for each: a fast teacher must not count for a slow one.
            sent = [threading.Event() for _ in queries]
            with order.of(step):
                futures = [
                    asks.submit(
                        self._payloads,
                        teacher,
                        f"{teacher.name}/{step}/{i}",
                        step,
                        parts[i],
                        rows_N,
                        cancelled,
                        is_sent,
                        finish,
                    )
                    for (teacher, i, rows_N), is_sent in zip(queries, sent, strict=True)
                ]
                for is_sent in sent:
                    is_sent.wait()
            return all_results(futures)

        valid = [part.valid_B.numpy() for part in parts]
        router_logits: list[Tensor | None] = [None] * len(parts)
        if self._router is not None:
            needed = [(self._router, i, part.rows_B[valid[i]]) for i, part in enumerate(parts)]
            for i, one in enumerate(query_all(turns[0], needed)):
                logits_NK = logits_of(self._router, one)
                router_logits[i] = spread(logits_NK, valid[i])
        chosen = [self._choose(part, router_logits[i]) for i, part in enumerate(parts)]
        masks = [
            chosen_KB.numpy() & valid_B for chosen_KB, valid_B in zip(chosen, valid, strict=True)
        ]
        needed = [
            (teacher, i, part.rows_B[masks[i][k]])
            for i, part in enumerate(parts)
            for k, teacher in enumerate(self._teachers)
        ]
        payloads = iter(query_all(turns[1], needed))
        joined: list[tuple[Any, Answers | None]] = []
        for i, part in enumerate(parts):
            ours = [next(payloads) for _ in self._teachers]
            answers = self._joining.join(part, ours, list(masks[i]), chosen[i], router_logits[i])
            joined.append((part, answers))
        slowest = max(finish, key=lambda name: finish[name]) if finish else None
        return _Answered(Step(step, joined), slowest)

    def _choose(self, part: Any, router_logits_BK: Tensor | None) -> Tensor:
        """Which teachers each row is routed to: bool [K, B]."""
        domain_teacher_B = torch.from_numpy(self._domain_teachers_of(part.rows_B))
        queried_KB = self._aggregation.choose(
            RoutingInputs(self.names, domain_teacher_B, router_logits_BK)
        )
        # A filler row counts as answered by all, with zeros: every aggregation then gives it
        # finite weights, and its loss is masked out.
        queried_KB[:, ~part.valid_B] = True
        return queried_KB

    def _payloads(
        self,
        teacher: ServedTeacher,
        request_id: str,
        step: int,
        part: Any,
        rows_N: np.ndarray,
        cancelled: threading.Event,
        is_sent: threading.Event,
        finish: dict[str, float],
    ) -> Payload:
        """One teacher's output for rows, from the cache where it has them.

        ``is_sent`` is set once nothing is left to send.
        """
        name, cache = teacher.name, self._cache_of(teacher)
        try:
            found = cache.get(name, rows_N)
            hit_N = found.hit_B
            if hit_N.all():
                self._meter.received(name, cached_rows=len(rows_N))
                return Payload(found.payload_PX, found.counts_N)
            if cancelled.is_set():
                raise CancelledError
            missing_N = rows_N[~hit_N]
            request = self.request(name, request_id, part, missing_N, step)
            output = self._client.call(name, request, cancelled, is_sent.set)
        finally:
            is_sent.set()
        finish[name] = time.perf_counter()
        request.check(output, teacher.width)
        counts_N = request.counts_B
        payload_PX = cache.put(name, missing_N, output.payload, counts_N)
        self._meter.used(name, output.usage)
        if output.stats is not None:
            self._meter.sampled(name, output.stats)
            self._health.check(name, output.stats, teacher.width)
        self._meter.received(
            name,
            rows=len(missing_N),
            bytes=payload_PX.nbytes,
            cached_rows=int(hit_N.sum()),
            compute_s=output.compute_s,
            clamped=output.num_clamped,
        )
        fresh = Payload(payload_PX, counts_N)
        if not hit_N.any():
            return fresh
        return in_order(hit_N, Payload(found.payload_PX, found.counts_N), fresh)


@dataclass(frozen=True)
class _Answered:
    step: Step
    slowest: str | None  # the teacher that answered last; None when all was in the cache


@dataclass(frozen=True)
class _Rows:
    rows_B: np.ndarray
    valid_B: Tensor


@dataclass(frozen=True)
class _Blocks:
    """Blocks of rows, as a source of batches without inputs: the stream needs none."""

    blocks: list[np.ndarray]

    def at(self, step: int) -> list[_Rows]:
        rows_B = self.blocks[step]
        return [_Rows(rows_B, torch.ones(len(rows_B), dtype=torch.bool))]
