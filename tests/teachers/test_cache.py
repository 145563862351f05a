import fcntl
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.config import Cache
from distill.errors import CacheError
from distill.records import Head
from distill.teachers.cache import (
    SEGMENT_BYTES,
    MemoryFolder,
    NoCache,
    TeacherCache,
    TeacherKey,
    _shared_head,
    open_cache,
)

KEY = TeacherKey("w" * 64, "d" * 64, "t" * 64, "dense/float32", 128)


def payload(rows, bias: float = 0.0) -> np.ndarray:
    return np.stack([np.asarray(rows), np.asarray(rows) * 2], axis=1).astype(np.float32) + bias


def filled(folder, rows, writer: str = "rank0", **kwargs) -> TeacherCache:
    cache = TeacherCache(folder, {"a": KEY}, writer, **kwargs)
    cache.put("a", np.asarray(rows), payload(rows))
    return cache


def not_requested() -> Head:
    raise AssertionError("the output layer is in the cache")


def segments(folder) -> list[Path]:
    return sorted(Path(folder).glob("a-*/segment-*.arrow"))


def test_hits_come_in_the_order_of_the_rows_from_files_and_from_memory(tmp_path):
    cache = filled(tmp_path, [5, 1, 9])
    cache.flush()
    cache.put("a", np.array([7, 3]), payload([7, 3]))
    cache.flush()
    cache.put("a", np.array([8]), payload([8]))
    hit_B, found, _ = cache.get("a", np.array([9, 2, 8, 3, 1]))
    assert hit_B.tolist() == [True, False, True, True, True]
    assert np.array_equal(found, payload([9, 8, 3, 1]))
    assert cache.num_rows("a") == 6


def test_another_run_finds_what_was_written_bit_for_bit(tmp_path):
    rng = np.random.default_rng(0)
    rows, values = rng.permutation(5000), rng.integers(0, 2**16, (5000, 3)).astype(np.uint16)
    cache = TeacherCache(tmp_path, {"a": KEY}, "rank0", segment_rows=700)
    for i in range(0, 5000, 100):
        cache.put("a", rows[i : i + 100], values[i : i + 100])
    cache.close()
    assert len(segments(tmp_path)) > 5
    hit_B, found, _ = TeacherCache(tmp_path, {"a": KEY}, "other").get("a", rows)
    assert hit_B.all()
    assert found.dtype == np.uint16
    assert np.array_equal(found, values)


def test_what_is_not_written_is_lost_with_its_process_and_asked_again(tmp_path):
    filled(tmp_path, [1, 2])
    assert TeacherCache(tmp_path, {"a": KEY}, "rank0").num_rows("a") == 0


def test_two_writers_see_each_other_after_a_refresh(tmp_path):
    first, second = filled(tmp_path, [1, 2], "rank0"), filled(tmp_path, [3], "rank1")
    first.flush()
    second.flush()
    assert not first.get("a", np.array([3]))[0].any()
    first.refresh()
    second.refresh()
    for cache in (first, second):
        hit_B, found, _ = cache.get("a", np.array([3, 2, 1]))
        assert hit_B.all()
        assert np.array_equal(found, payload([3, 2, 1]))


def test_a_row_keeps_the_answer_that_was_served_first(tmp_path):
    first = filled(tmp_path, [1], "rank1")
    first.flush()
    second = TeacherCache(tmp_path, {"a": KEY}, "rank0")
    second.put("a", np.array([1]), payload([1], bias=0.5))
    second.flush()
    first.refresh()
    second.refresh()
    assert np.array_equal(first.get("a", np.array([1]))[1], payload([1]))
    assert first.num_rows("a") == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_damaged_file_is_refused_with_its_name_and_the_way_out(tmp_path, damage):
    filled(tmp_path, range(50)).flush()
    (path,) = segments(tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    half = len(content) // 2
    path.write_bytes({"cut": content[:half], "flipped": content, "emptied": b""}[damage])
    with pytest.raises(CacheError, match="delete it") as caught:
        TeacherCache(tmp_path, {"a": KEY}, "rank0")
    assert str(path) in str(caught.value)
    path.unlink()
    assert TeacherCache(tmp_path, {"a": KEY}, "rank0").num_rows("a") == 0


def test_other_weights_start_another_cache_and_it_is_said_why(tmp_path):
    filled(tmp_path, [1]).close()
    other = TeacherKey("x" * 64, *list(vars(KEY).values())[1:])
    cache = TeacherCache(tmp_path, {"a": other}, "rank0")
    assert cache.messages == ["teacher cache of 'a' was made for other weights: building a new one"]
    assert cache.num_rows("a") == 0
    both = TeacherKey("x" * 64, "y" * 64, KEY.tokenizer, KEY.wire, 64)
    (message,) = TeacherCache(tmp_path, {"a": both}, "rank0").messages
    assert "other data and another max_length" in message
    tail = replace(KEY, cut="tail")
    (message,) = TeacherCache(tmp_path, {"a": tail}, "rank0").messages
    assert "was made for another data.cut:" in message
    assert TeacherCache(tmp_path, {"a": KEY}, "rank0").messages == []
    assert TeacherCache(tmp_path, {"a": KEY}, "rank0").num_rows("a") == 1


def test_a_teacher_whose_name_begins_with_anothers_is_told_apart(tmp_path):
    TeacherCache(tmp_path, {"a-b": KEY}, "rank0")
    assert TeacherCache(tmp_path, {"a": KEY}, "rank0").messages == []


def test_threads_may_put_and_get_at_once(tmp_path):
    cache = TeacherCache(tmp_path, {"a": KEY}, "rank0", segment_rows=50)
    wrong = []

    def work(first: int) -> None:
        for i in range(first, first + 200, 10):
            rows = np.arange(i, i + 10)
            cache.put("a", rows, payload(rows))
            hit_B, found, _ = cache.get("a", rows)
            if not hit_B.all() or not np.array_equal(found, payload(rows)):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i * 200,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert cache.num_rows("a") == 800


def test_a_memory_cache_is_shared_and_its_last_user_removes_it(tmp_path):
    config = Cache(type="memory")
    first = open_cache(config, tmp_path / "run", {"a": KEY}, "rank0")
    second = open_cache(config, tmp_path / "run", {"a": KEY}, "rank1")
    elsewhere = open_cache(config, tmp_path / "other", {"a": KEY}, "rank0")
    first.put("a", np.array([1]), payload([1]))
    first.flush()
    second.refresh()
    assert second.get("a", np.array([1]))[0].all()
    assert elsewhere.num_rows("a") == 0
    folder = first._memory.path
    first.close()
    assert folder.exists()
    second.close()
    assert not folder.exists()
    elsewhere.close()
    assert not (tmp_path / "run").exists()


def test_what_a_killed_run_left_in_memory_is_removed_by_the_next(tmp_path):
    killed = MemoryFolder("killed", root=tmp_path)
    os.close(killed._lock)  # its process is gone
    living = MemoryFolder("living", root=tmp_path)
    MemoryFolder("next", root=tmp_path)
    assert not killed.path.exists()
    assert living.path.exists()


def test_no_cache_keeps_nothing(tmp_path):
    cache = open_cache(Cache(type="none"), tmp_path / "run", {"a": KEY}, "rank0")
    cache.put("a", np.array([1]), payload([1]))
    assert not cache.get("a", np.array([1]))[0].any()
    cache.close()
    assert list(tmp_path.iterdir()) == []


def ragged(rows):
    """Row r has r % 4 positions, each of them r, r + 1."""
    counts_B = np.asarray(rows) % 4
    rows_P = np.repeat(np.asarray(rows), counts_B)
    return np.stack([rows_P, rows_P + 1], axis=1).astype(np.float32), counts_B


def test_rows_of_many_positions_come_back_whole_from_memory_and_from_disk(tmp_path):
    cache = TeacherCache(tmp_path, {"a": KEY}, "rank0", segment_rows=5)
    for first in range(0, 18, 3):  # flushes on the way, and 3 rows stay in memory
        rows = np.arange(first, first + 3)
        cache.put("a", rows, *ragged(rows))
    wanted = np.array([17, 3, 40, 4, 16, 9, 11, 12, 30])
    known = wanted[wanted < 18]
    for reader in (cache, TeacherCache(tmp_path, {"a": KEY}, "rank1", segment_rows=5)):
        cache.flush()
        reader.refresh()
        hit_B, found_PX, counts_N = reader.get("a", wanted)
        want_PX, want_counts = ragged(known)
        assert hit_B.tolist() == (wanted < 18).tolist()
        assert np.array_equal(found_PX, want_PX)
        assert counts_N.tolist() == want_counts.tolist()


def test_large_rows_are_written_before_they_fill_the_memory(tmp_path):
    cache = TeacherCache(tmp_path, {"a": KEY}, "rank0")
    large = np.zeros((1, SEGMENT_BYTES // 8), np.float32)  # half of what may be held
    cache.put("a", np.array([0]), large)
    assert not list(tmp_path.rglob("segment-*"))
    cache.put("a", np.array([1]), large + 1)
    # Written by another thread: served meanwhile, and on the disk before the third half is.
    assert cache.num_rows("a") == 2
    assert cache.get("a", np.array([1, 0])).payload_PX[:, 0].tolist() == [1, 0]
    cache.put("a", np.array([2]), large)
    cache.put("a", np.array([3]), large)
    assert len(list(tmp_path.rglob("segment-*"))) >= 1
    cache.close()
    assert len(list(tmp_path.rglob("segment-*"))) == 2
    assert TeacherCache(tmp_path, {"a": KEY}, "rank1").num_rows("a") == 4


def test_an_output_layer_is_kept_bit_for_bit_beside_its_hidden_states(tmp_path):
    cache = TeacherCache(tmp_path, {"a": KEY}, "rank0")
    head = Head(torch.randn(7, 3).bfloat16(), torch.randn(7))
    assert cache.head("a", lambda: head).equals(head)
    kept = TeacherCache(tmp_path, {"a": KEY}, "rank1").head("a", not_requested)
    assert torch.equal(kept.weight_VH, head.weight_VH) and kept.weight_VH.dtype == torch.bfloat16
    assert torch.equal(kept.bias_V, head.bias_V)
    next(tmp_path.rglob("head.safetensors")).write_bytes(b"cut short")
    with pytest.raises(CacheError, match="delete it and run again"):
        cache.head("a", not_requested)


class Sender:
    """A teacher that counts how often its output layer is requested."""

    def __init__(self) -> None:
        self.head = Head(torch.randn(7, 3), None)
        self.num_requests = 0
        self.may_send = threading.Event()
        self.may_send.set()

    def __call__(self) -> Head:
        self.num_requests += 1
        assert self.may_send.wait(timeout=30)
        return self.head


@pytest.mark.parametrize("type_", ["arrow", "none"])
def test_an_output_layer_is_sent_once_for_all_processes_of_a_folder(tmp_path, type_):
    sender = Sender()
    for rank in range(3):
        cache = open_cache(Cache(type=type_), tmp_path, {"a": KEY}, f"rank{rank}")
        assert cache.head("a", sender).equals(sender.head)
        cache.close()
    assert sender.num_requests == 1


def test_ranks_that_start_together_request_an_output_layer_once(tmp_path):
    sender = Sender()
    sender.may_send.clear()
    caches = [open_cache(Cache(type="none"), tmp_path, {"a": KEY}, f"rank{r}") for r in range(2)]
    found: list[Head] = []
    threads = [
        threading.Thread(target=lambda cache=cache: found.append(cache.head("a", sender)))
        for cache in caches
    ]
    for thread in threads:
        thread.start()
    threads[1].join(timeout=0.2)  # time to request it too, were it not for the lock
    sender.may_send.set()
    for thread in threads:
        thread.join()
    assert sender.num_requests == 1
    assert [head.equals(sender.head) for head in found] == [True, True]


def test_a_process_that_waits_for_an_away_teacher_does_not_hold_up_the_others(tmp_path):
    """Otherwise each would begin to wait for ``recovery_s`` when the one before has given up."""
    sender = Sender()
    with open(tmp_path / ".head-lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert _shared_head(tmp_path, sender, wait_s=0.01).equals(sender.head)
    assert sender.num_requests == 1


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="needs Linux")
def test_an_output_layer_is_mapped_not_copied(tmp_path):
    sender = Sender()
    head = TeacherCache(tmp_path, {"a": KEY}, "rank0").head("a", sender)
    address = head.weight_VH.data_ptr()
    with open("/proc/self/maps") as maps:
        lines = [line.split() for line in maps]
    ranges = [([int(end, 16) for end in line[0].split("-")], line[-1]) for line in lines]
    (file,) = [name for (first, last), name in ranges if first <= address < last]
    assert file.endswith("head.safetensors")


def test_without_a_folder_an_output_layer_is_requested_by_each():
    sender = Sender()
    assert NoCache().head("a", sender) is sender.head
    assert NoCache().head("a", sender) is sender.head
    assert sender.num_requests == 2
