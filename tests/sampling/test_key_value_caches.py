"""Key-value caches kept between verification requests: limited in bytes, least recently used out.

The toy teacher has 2 layers; see tests/toys_language.py.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from distill.config import Serving
from distill.run_folder import OPERATIONAL_SERVING
from distill.sampling import Decoding
from distill.sampling.key_values import KeyValueCache
from distill.sampling.records import DraftRequest, Round, VerifiedDrafts
from distill.sampling.verification import Verification
from tests.toys_language import NUM_TOKENS, llama

PROMPT = np.array([3, 4, 5, 6])
READ = np.array([[6, 7]])  # the last token of the prompt, and the first draft
DRAFTS = np.array([[7, 8]])


def round_of(writer: str, past: int) -> DraftRequest:
    """The next round of a text of which ``past`` rounds have been verified and kept whole."""
    return DraftRequest(
        f"{writer}/{past}",
        writer,
        0,
        (PROMPT,),
        tuple(Round(np.array([0]), READ, np.array([2])) for _ in range(past)),
        np.array([0]),
        READ[:, 0],
        DRAFTS,
        np.array([0.5]),
        2,
        None,
        Decoding(),
    )


def bytes_after(num_slots: int) -> int:
    """Keys and values, float32, of one sequence."""
    config = llama(1).config
    assert config.num_key_value_heads is not None
    width = config.num_key_value_heads * config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * num_slots * width * 4


def rounds_read_again(max_bytes: float, writers: str) -> list[int]:
    """Each letter of ``writers`` is the next round of that writer's text."""
    judging = Verification(llama(1), NUM_TOKENS, max_bytes)
    seen: dict[str, int] = {}
    found = []
    for writer in writers:
        past = seen.get(writer, 0)
        found.append(judging.verify(round_of(writer, past)).num_replayed)
        seen[writer] = past + 1
    return found


def test_a_memory_counts_the_bytes_of_its_keys_and_values():
    memory = KeyValueCache(llama(1), NUM_TOKENS, [[3, 4, 5], [6, 7, 8]])
    assert memory.num_bytes == 2 * bytes_after(2)
    memory.read(torch.tensor([[5], [8]]))
    assert memory.num_bytes == 2 * bytes_after(3)
    memory.keep(torch.tensor([1, 1]))
    memory.select(torch.tensor([1]))
    assert memory.num_bytes == bytes_after(3)


def test_caches_within_the_limit_stay():
    # Two texts of a first round: 3 slots of the prompt and 2 read each; then one of 7.
    assert rounds_read_again(bytes_after(5 + 7), "abab")[:3] == [0, 0, 0]
    assert rounds_read_again(math.inf, "abcabc") == [0] * 6


def test_the_least_recently_used_is_evicted_first():
    limit = bytes_after(7 + 5)  # a text of two rounds, and one of a single round
    # c evicts b, which was used before a's second round; a, used since, stays.
    assert rounds_read_again(limit, "abaca")[4] == 0
    assert rounds_read_again(limit, "abacb")[4] == 1


def test_one_byte_too_few_evicts():
    limit = 2 * bytes_after(5)
    assert rounds_read_again(limit, "aba")[2] == 0
    assert rounds_read_again(limit - 1, "aba")[2] == 1


def test_a_limit_of_nothing_still_keeps_the_newest():
    assert rounds_read_again(0, "aaa") == [0, 0, 0]
    assert rounds_read_again(0, "aab")[2] == 0
    assert rounds_read_again(0, "aabba")[4] == 2


def test_evicted_caches_change_no_verdict():
    def verdicts(max_bytes: float) -> list[VerifiedDrafts]:
        judging = Verification(llama(1), NUM_TOKENS, max_bytes)
        return [judging.verify(round_of(w, past)) for past in range(4) for w in "abc"]

    for kept, evicted in zip(verdicts(math.inf), verdicts(0), strict=True):
        assert np.array_equal(kept.num_kept_b, evicted.num_kept_b)
        assert np.array_equal(kept.replacement_b, evicted.replacement_b)
    assert sum(v.num_replayed for v in verdicts(0)) == 3 * (1 + 2 + 3)


def test_the_limit_is_a_setting_that_may_change_on_resume():
    assert Serving().kv_cache_mb == 4096
    assert "kv_cache_mb" in OPERATIONAL_SERVING
