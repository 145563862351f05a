"""The teacher's side of speculative sampling: drafts in, how many pass, and what comes instead.

Shape suffixes: b sequences still being written, G drafts of a round, V vocabulary.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from distill.sampling.draw import are_kept, draw
from distill.sampling.key_values import KeyValueCache
from distill.sampling.records import DraftRequest, VerifiedDrafts


@dataclass
class _Session:
    """One step of a writer."""

    step: int
    memory: KeyValueCache
    rows_b: np.ndarray  # that the memory holds
    num_read: int = 0  # rounds
    num_kept: int = 0

    def precedes(self, request: DraftRequest) -> bool:
        return self.step == request.step and self.num_read <= len(request.past)

    def read(self, rows_b: np.ndarray, tokens_bG: np.ndarray) -> torch.Tensor:
        """float32[b, G, V]."""
        if len(rows_b) < len(self.rows_b):
            self.memory.select(torch.from_numpy(np.searchsorted(self.rows_b, rows_b)))
            self.rows_b = rows_b
        self.num_read += 1
        return self.memory.read(torch.from_numpy(tokens_bG))

    def keep(self, kept_b: np.ndarray) -> None:
        self.memory.keep(torch.from_numpy(kept_b))
        self.num_kept += 1


class Verification:
    """Keeps a key-value cache for each writer, of its newest step: no more than what its requests
    repeat. An evicted one is built again from the next request, with the same results."""

    def __init__(self, model: Any, num_tokens: int, max_bytes: float = math.inf) -> None:
        """``max_bytes``: of all caches kept between requests, the newest of which always stays;
        those used least recently are evicted first."""
        self._model = model
        self._num_tokens = num_tokens
        self._max_bytes = max_bytes
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def verify(self, request: DraftRequest) -> VerifiedDrafts:
        started = time.perf_counter()
        session = self._sessions.pop(request.writer, None)
        if session is None or not session.precedes(request):
            session = None  # before the next one takes as much memory
            prompts = [prompt.tolist() for prompt in request.prompts]
            memory = KeyValueCache(self._model, self._num_tokens, prompts)
            session = _Session(request.step, memory, np.arange(len(prompts)))
        num_replayed = 0
        for one in request.past[session.num_kept :]:
            if session.num_read == session.num_kept:
                session.read(one.rows_b, one.tokens_bG)
                num_replayed += 1
            session.keep(one.kept_b)
        logits_bGV = session.read(request.rows_b, request.read_bG)
        # Only now: what failed on the way is built again.
        self._sessions[request.writer] = session
        self._evict()
        verified = _verified(logits_bGV, request, num_replayed)
        return replace(verified, compute_s=time.perf_counter() - started)

    def forget(self) -> None:
        """Evict all."""
        self._sessions.clear()

    def _evict(self) -> None:
        num_bytes = sum(session.memory.num_bytes for session in self._sessions.values())
        while num_bytes > self._max_bytes and len(self._sessions) > 1:
            _, evicted = self._sessions.popitem(last=False)
            num_bytes -= evicted.memory.num_bytes


def _verified(logits_bGV: torch.Tensor, request: DraftRequest, num_replayed: int) -> VerifiedDrafts:
    drafts_bG = torch.from_numpy(request.drafts_bG).to(logits_bGV.device)
    are_kept_bG = are_kept(logits_bGV, drafts_bG, request.top_k, request.nucleus)
    num_kept_b = are_kept_bG.long().cumprod(1).sum(1)
    num_drafts = drafts_bG.shape[1]
    at_b = num_kept_b.clamp(max=num_drafts - 1)
    logits_bV = logits_bGV[torch.arange(len(at_b), device=at_b.device), at_b]
    replacement_b = draw(logits_bV, request.decoding, request.uniform_b)
    replacement_b = replacement_b.masked_fill(num_kept_b == num_drafts, -1)
    return VerifiedDrafts(
        request.request_id, num_kept_b.cpu().numpy(), replacement_b.cpu().numpy(), num_replayed
    )
