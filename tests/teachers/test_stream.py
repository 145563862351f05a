"""The promises of the stream, with teachers whose every answer is known in advance."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from teacher_stand_ins import FakeBatches, FakeTokens, Formula, ParityRouter, formula

from distill.aggregation import OracleDomain, Routed, Single, UniformMean
from distill.config import Serving
from distill.errors import TeacherAnswerError
from distill.records import TeacherOutput
from distill.teachers.cache import TeacherCache, TeacherKey
from distill.teachers.local import LocalTeachers
from distill.teachers.requests import TeacherRequest
from distill.teachers.served import ServedTeacher
from distill.teachers.stream import TeacherStream
from distill.wires import decode_dense
from tests.toys_teachers import answers_of_rows, backend_of

ROWS = np.arange(100, 140)
KEYS = {name: TeacherKey(name, "d", "t", "dense/float32", 8) for name in ("a", "b", "router")}


class Setting:
    """Teachers a (bias 0) and b (bias 1), and a router by parity."""

    def __init__(self, **kwargs) -> None:
        self.a, self.b, self.router = Formula(**kwargs), Formula(bias=1.0, **kwargs), ParityRouter()
        self.client = LocalTeachers(
            {
                "a": backend_of(self.a, num_labels=3),
                "b": backend_of(self.b, num_labels=3),
                "router": backend_of(self.router, num_labels=2),
            }
        )

    def stream(self, is_routed: bool = False, **kwargs) -> TeacherStream:
        return TeacherStream(
            kwargs.pop("client", self.client),
            [ServedTeacher(name, "", Serving(), 3) for name in "ab"],
            dict.fromkeys(("a", "b", "router"), kwargs.pop("tokens", FakeTokens())),
            aggregation=kwargs.pop("aggregation", Routed(k=1) if is_routed else UniformMean()),
            router=ServedTeacher("router", "", Serving(), 2) if is_routed else None,
            **kwargs,
        )


@pytest.fixture(autouse=True)
def _no_threads_left():
    before = set(threading.enumerate())
    yield
    left = [t.name for t in set(threading.enumerate()) - before if t.name.startswith("stream")]
    assert not left


def test_every_step_has_its_own_rows_answers_in_order_whatever_the_delays():
    rng = random.Random(0)
    setting = Setting(delay=lambda: rng.random() * 0.01)
    batches = FakeBatches(ROWS, 8, num_micro_batches=2)
    with setting.stream(in_flight=6) as stream:
        steps = list(stream.feed(batches, 2, 13))
    assert [s.step for s in steps] == list(range(2, 13))
    for step in steps:
        for part, want in zip(step.parts, batches.at(step.step), strict=True):
            batch, answers = part
            assert np.array_equal(batch.rows_B, want.rows_B)
            rows_B = batch.rows_B
            want_KBV = torch.stack([formula(rows_B), formula(rows_B, bias=1.0)])
            assert torch.equal(answers.logits_KBV, want_KBV)
            assert answers.queried_KB.all()
            assert answers.router_logits_BK is None


def test_only_the_chosen_experts_are_asked_and_only_for_their_rows():
    setting = Setting()
    batches = FakeBatches(ROWS, 8)
    with setting.stream(is_routed=True) as stream:
        steps = list(stream.feed(batches, 0, batches.steps_per_epoch))
    assert sorted(setting.router.rows) == ROWS.tolist()
    assert sorted(setting.a.rows) == [r for r in ROWS if r % 2 == 0]
    assert sorted(setting.b.rows) == [r for r in ROWS if r % 2 == 1]
    for step in steps:
        ((batch, answers),) = step.parts
        odd_B = torch.from_numpy(batch.rows_B % 2 == 1)
        assert torch.equal(answers.queried_KB, torch.stack([~odd_B, odd_B]))
        want_B3 = torch.where(odd_B[:, None], formula(batch.rows_B, bias=1.0), 0)
        assert torch.equal(answers.logits_KBV[1], want_B3)
        assert torch.equal(answers.router_logits_BK.argmax(1) == 1, odd_B)


def test_a_single_teacher_and_the_domains_own_are_asked_alone():
    batches = FakeBatches(ROWS, 8, num_micro_batches=3)
    setting = Setting()
    with setting.stream(aggregation=Single(teacher="b")) as stream:
        list(stream.feed(batches, 0, batches.steps_per_epoch))
    assert setting.a.rows == [] and sorted(setting.b.rows) == ROWS.tolist()
    setting = Setting()
    domain_teachers = {
        "aggregation": OracleDomain(),
        "domain_teachers_of": lambda rows: (rows % 3 == 0).astype(int),
    }
    with setting.stream(**domain_teachers) as stream:
        list(stream.feed(batches, 0, batches.steps_per_epoch))
        assert sorted(setting.b.rows) == [r for r in ROWS if r % 3 == 0]
        assert sorted(setting.a.rows) == [r for r in ROWS if r % 3]
        answers = answers_of_rows(stream, ROWS)
    assert answers.queried_KB.int().argmax(0).tolist() == [int(r % 3 == 0) for r in ROWS]


def test_requests_are_sent_in_the_order_of_the_steps():
    rng = random.Random(0)

    class Late(FakeBatches):
        def at(self, step):
            time.sleep(rng.random() * 0.01)
            return super().at(step)

    class LateTokens(FakeTokens):
        def padded(self, rows):
            time.sleep(rng.random() * 0.02)
            return super().padded(rows)

    setting = Setting()
    batches = Late(ROWS, 4)
    with setting.stream(is_routed=True, in_flight=8, tokens=LateTokens()) as stream:
        steps = list(stream.feed(batches, 0, 10))
    in_order = [row for step in steps for row in step.parts[0][0].rows_B.tolist()]
    assert setting.router.rows == in_order
    assert setting.a.rows == [r for r in in_order if r % 2 == 0]


def test_a_filler_row_is_not_asked_and_has_finite_weights():
    setting = Setting()
    batches = FakeBatches(np.arange(200, 203), 4, num_micro_batches=4)  # the last part is empty
    with setting.stream(is_routed=True) as stream:
        (step,) = stream.feed(batches, 0, 1)
    batch, answers = step.parts[-1]
    assert not batch.valid_B.any()
    assert sorted(setting.a.rows + setting.b.rows) == [200, 201, 202]
    for aggregation in (Routed(k=1), UniformMean()):
        weights = aggregation.weigh(answers, None, None)
        assert torch.isfinite(weights.weights_KB).all()
        assert torch.isfinite(aggregation.target(answers, weights.weights_KB, 2.0).logp_NV).all()


@pytest.mark.parametrize("is_routed", [False, True])
def test_a_second_epoch_asks_nothing(tmp_path, is_routed):
    setting = Setting()
    batches = FakeBatches(ROWS, 8)
    cache = TeacherCache(tmp_path, KEYS, "rank0")
    with setting.stream(is_routed, cache=cache) as stream:
        first = list(stream.feed(batches, 0, 5))
        asked = len(setting.a.rows + setting.b.rows + setting.router.rows)
        assert asked == 80
        stream.timings()
        second = list(stream.feed(batches, 5, 10))
        timings = stream.timings()
    assert len(setting.a.rows + setting.b.rows + setting.router.rows) == asked
    assert timings["teacher.a.rows"] == 0
    assert timings["teacher.a.cached_rows"] == (20 if is_routed else 40)
    assert by_row(first) == by_row(second)


def by_row(steps) -> dict[int, bytes]:
    found = {}
    for step in steps:
        for batch, answers in step.parts:
            for b, row in enumerate(batch.rows_B.tolist()):
                found[row] = answers.logits_KBV[:, b].numpy().tobytes()
    return found


def test_two_ranks_that_swap_rows_ask_each_row_once(tmp_path):
    rng = random.Random(0)
    setting = Setting(delay=lambda: rng.random() * 0.005)
    barrier = threading.Barrier(2, timeout=600)

    def rank(i: int):
        batches = FakeBatches(ROWS, 8, rank=i, world_size=2)
        cache = TeacherCache(tmp_path, KEYS, f"rank{i}")
        with setting.stream(True, cache=cache, boundary=barrier.wait) as stream:
            return list(stream.feed(batches, 0, 3 * batches.steps_per_epoch))

    with ThreadPoolExecutor(2) as ranks:
        left, right = ranks.map(rank, range(2))
    assert sorted(setting.router.rows) == ROWS.tolist()
    assert sorted(setting.a.rows + setting.b.rows) == ROWS.tolist()
    epochs = [by_row(left[i : i + 5] + right[i : i + 5]) for i in (0, 5, 10)]
    assert epochs[0] == epochs[1] == epochs[2]
    assert by_row(left[:5]).keys() != by_row(left[5:10]).keys()


def test_no_epoch_is_begun_before_the_boundary(tmp_path):
    setting = Setting()
    batches = FakeBatches(ROWS, 8)
    asked_at_boundary = []
    stream = setting.stream(
        in_flight=10, boundary=lambda: asked_at_boundary.append(len(setting.a.rows))
    )
    with stream:
        list(stream.feed(batches, 3, 12))
    assert asked_at_boundary == [16, 56]  # and none where the feed stops inside an epoch


def test_a_resumed_stream_gives_the_same_answers():
    setting = Setting()
    batches = FakeBatches(ROWS, 8)
    with setting.stream(is_routed=True) as stream:
        whole = list(stream.feed(batches, 0, 12))
    with setting.stream(is_routed=True, in_flight=0) as stream:
        resumed = list(stream.feed(batches, 7, 12))
    for a, b in zip(whole[7:], resumed, strict=True):
        for (_, left), (_, right) in zip(a.parts, b.parts, strict=True):
            assert torch.equal(left.logits_KBV, right.logits_KBV)
            assert torch.equal(left.queried_KB, right.queried_KB)
            assert torch.equal(left.router_logits_BK, right.router_logits_BK)


@pytest.mark.parametrize("in_flight", [0, 1, 3])
def test_in_flight_steps_are_asked_ahead_and_no_more(in_flight):
    setting = Setting()
    batches = FakeBatches(ROWS, 4)
    with setting.stream(in_flight=in_flight) as stream:
        feed = stream.feed(batches, 0, 10)
        next(feed)
        next(feed)
        expected = 4 * (2 + in_flight)  # two taken, and those ahead
        deadline = time.monotonic() + 600  # ends only what hangs
        while len(setting.b.rows) < expected and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert len(setting.a.rows) == len(setting.b.rows) == expected


def test_an_error_of_a_teacher_surfaces_as_itself_at_its_step():
    setting = Setting()
    batches = FakeBatches(ROWS, 8)
    setting.b.fail_on = int(batches.at(3)[0].rows_B[0])
    seen = []
    with setting.stream() as stream, pytest.raises(RuntimeError, match="out of memory on row"):
        seen.extend(step.step for step in stream.feed(batches, 0, 5))
    assert seen == [0, 1, 2]


def test_an_error_of_the_batches_surfaces_though_later_steps_wait_their_turn():
    class Torn(FakeBatches):
        def at(self, step):
            if step == 2:
                raise OSError("disk gone")
            return super().at(step)

    seen = []
    with Setting().stream() as stream, pytest.raises(OSError, match="disk gone"):
        seen.extend(step.step for step in stream.feed(Torn(ROWS, 8), 0, 5))
    assert seen == [0, 1]


def test_closing_cancels_what_is_outstanding():
    release = threading.Event()
    setting = Setting(delay=lambda: release.wait(10))
    stream = setting.stream(in_flight=4)
    feed = stream.feed(FakeBatches(ROWS, 4), 0, 10)
    threading.Timer(0.3, release.set).start()
    next(feed)
    asked = len(setting.a.rows)
    stream.close()
    assert len(setting.a.rows) <= asked + 4 * 5
    assert next(feed, None) is None


def test_an_evaluation_may_run_while_training_is_asked_ahead(tmp_path):
    setting = Setting()
    train, validation = FakeBatches(ROWS, 8), FakeBatches(np.arange(300, 320), 8)
    with setting.stream(cache=TeacherCache(tmp_path, KEYS, "rank0")) as stream:
        feed = stream.feed(train, 0, 5)
        steps = [next(feed)]
        inner = list(stream.feed(validation, 0, validation.steps_per_epoch))
        steps += feed
    assert len(by_row(inner)) == 20
    assert len(by_row(steps)) == 40


def test_fill_requests_each_row_once(tmp_path):
    setting = Setting()
    cache = TeacherCache(tmp_path, KEYS, "driver")
    rows = np.random.default_rng(0).permutation(ROWS)
    with setting.stream(cache=cache) as stream:
        stream.fill(rows, batch_size=7)
        stream.fill(rows[:9])
        answers = answers_of_rows(stream, rows, batch_size=7)
    assert torch.equal(answers.logits_KBV[1], formula(rows, bias=1.0))
    assert len(setting.a.rows) == 40
    assert cache.num_rows("a") == 40


def test_timings_have_stable_names_and_start_again():
    setting = Setting(delay=lambda: 0.02)
    batches = FakeBatches(ROWS, 8)
    with setting.stream(is_routed=True) as stream:
        names = set(stream.timings())
        list(stream.feed(batches, 0, 5))
        timings = stream.timings()
        assert set(timings) == names == set(stream.timings())
    assert timings["teacher.a.rows"] == 20
    assert timings["teacher.router.rows"] == 40
    assert timings["teacher.a.bytes"] == 20 * 3 * 4
    assert timings["teacher.a.requests"] == 5
    assert timings["stream.wait_s"] > 0
    waits = [v for k, v in timings.items() if k.endswith("wait_s") and k.startswith("teacher")]
    assert sum(waits) == pytest.approx(timings["stream.wait_s"])


def good() -> tuple[TeacherRequest, TeacherOutput]:
    ids = np.array([[4], [7]])
    request = TeacherRequest("a/3/0", ids[:, 0], ids, np.ones_like(ids))
    return request, backend_of(Formula(), num_labels=3).answer(request)


def test_a_good_output_passes():
    request, output = good()
    request.check(output, 3)
    logits_BV = decode_dense(output.payload, output.wire)
    assert torch.equal(logits_BV, formula(request.rows_B))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"request_id": "a/2/0"}, "belongs to request a/2/0"),
        ({"rows_B": np.array([7, 4])}, "different rows"),
        ({"payload": np.zeros((2, 4), np.float32)}, r"shape \[2, 4\], expected \[2, 3\]"),
        ({"payload": np.zeros((1, 3), np.float32)}, r"shape \[1, 3\]"),
        ({"payload": np.full((2, 3), np.nan, np.float32)}, "NaN or infinity"),
        ({"payload": np.full((2, 3), np.inf, np.float32)}, "NaN or infinity"),
        ({"wire": "dense/bfloat16"}, "cannot be read"),
    ],
)
def test_a_wrong_output_is_refused(change, message):
    request, output = good()
    with pytest.raises(TeacherAnswerError, match=message):
        request.check(replace(output, **change), 3)


def test_a_wrong_output_never_reaches_the_student_or_the_cache(tmp_path):
    setting = Setting()

    class Lying(LocalTeachers):
        def call(self, teacher, request, cancelled=None, on_sent=None):
            output = super().call(teacher, request, cancelled, on_sent)
            return replace(output, rows_B=output.rows_B[::-1]) if teacher == "b" else output

    client = Lying(setting.client.backends)
    cache = TeacherCache(tmp_path, KEYS, "rank0")
    with setting.stream(client=client, cache=cache) as stream, pytest.raises(TeacherAnswerError):
        list(stream.feed(FakeBatches(ROWS, 8), 0, 5))
    assert cache.num_rows("b") == 0
