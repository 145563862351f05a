"""Adapters on one copy of a base answer as each would alone, whoever was asked before."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill.config import Serving
from distill.config.moe import AllExperts, OwnRouting, StudentAwareRouter
from distill.config.sampling import Decoding
from distill.models.language import load_language_model
from distill.moe.optimizer import GateOptimizer
from distill.sampling.records import DraftRequest, GenerationRequest, Round, VerifiedDrafts
from distill.teachers.backends import groups, open_backends
from distill.teachers.cache import TeacherKey
from distill.teachers.local import LocalTeachers
from distill.teachers.requests import GateRequest, GateStateRequest, HeadRequest
from distill.teachers.served import ServedTeacher
from distill.wires import DenseWire, HiddenWire
from tests.toys_adapters import alone, write_adapter
from tests.toys_language import NUM_TOKENS, write_llama, write_tokenizer
from tests.toys_moe import DENSE, mixture, request
from tests.toys_teachers import backend_of

NAMES = ("code", "prose.v2")  # peft has no dots in an adapter's name
HIDDEN = HiddenWire(dtype="float32")
GREEDY = Decoding(temperature=0)
KEY = TeacherKey("weights", "data", "tokenizer", "wire", 0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    write_llama(folder / "base")
    for seed, name in enumerate(NAMES):
        targets = ["q_proj", "v_proj"] if seed else "all-linear"
        write_adapter(folder / name, folder / "base", seed, target_modules=targets)
    mixture().save_pretrained(folder / "mixture")
    write_tokenizer(folder / "mixture")
    for seed, name in enumerate(NAMES):
        write_adapter(folder / f"mixture-{name}", folder / "mixture", seed)
    return folder


def spec(root: Path, name: str, base: str = "base", **serving: Any) -> ServedTeacher:
    prefix = "" if base == "base" else f"{base}-"
    own = Serving(**{"wire": HIDDEN} | serving)
    folder = str(root / f"{prefix}{name}")
    return ServedTeacher(name, str(root / base), own, NUM_TOKENS, KEY, "language_model", folder)


def shared(root: Path, base: str = "base", **serving: Any) -> Mapping[str, Any]:
    return open_backends([spec(root, name, base, **serving) for name in NAMES])


def engine_alone(
    root: Path, name: str, base: str = "base", dtype: Any = "float32", **changes: Any
) -> Any:
    prefix = "" if base == "base" else f"{base}-"
    model = alone(root / base, root / f"{prefix}{name}", dtype)
    changes = {"wire": HIDDEN} | changes
    return backend_of(model, num_labels=NUM_TOKENS, dtype=dtype, is_language_model=True, **changes)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("wire", [HIDDEN, DENSE])
def test_each_answers_as_it_does_alone_in_any_order(root: Path, dtype: Any, wire: Any) -> None:
    together = shared(root, dtype=dtype, wire=wire)
    own = {name: engine_alone(root, name, dtype=dtype, wire=wire) for name in NAMES}
    expected = {name: engine.answer(request()).payload for name, engine in own.items()}
    assert not np.array_equal(*expected.values())
    for name in (*NAMES, *reversed(NAMES), *NAMES):
        assert np.array_equal(together[name].answer(request()).payload, expected[name])
        head = together[name].call(HeadRequest()).weight_VH
        assert torch.equal(head, own[name].call(HeadRequest()).weight_VH)


def test_all_adapters_move_with_their_base(root: Path) -> None:
    """As an idle teacher that leaves the GPU (``offload_idle_s``); ``meta`` is another device."""
    engine = shared(root)[NAMES[1]]
    model: Any = engine.language_model.model
    engine.device = torch.device("meta")
    engine.restore()
    weights = dict(model.named_parameters())
    adapters = {name.split(".")[-2] for name in weights if "lora_A" in name}
    assert adapters == {"adapter0", "adapter1"}
    assert all(weight.is_meta for weight in weights.values())


def test_there_is_one_base(root: Path) -> None:
    found = shared(root)
    bases = []
    for name in NAMES:
        model: Any = found[name].language_model.model
        tensors = dict(model.named_parameters())
        bases.append({n: t.data_ptr() for n, t in tensors.items() if ".lora_" not in n})
    assert bases[0] == bases[1]
    plain = load_language_model(root / "base")
    assert sum(1 for _ in plain.parameters()) == len(bases[0])


def test_requests_that_meet_do_not_mix(root: Path) -> None:
    """Two threads, as an actor has them, each asking for its own adapter."""
    client = LocalTeachers(shared(root))
    expected = {name: client.call(name, request()).payload for name in NAMES}
    start = threading.Barrier(2)

    def ask(name: str) -> list[bool]:
        start.wait()
        answers = [client.call(name, request()).payload for _ in range(20)]
        return [np.array_equal(answer, expected[name]) for answer in answers]

    with ThreadPoolExecutor(2) as threads:
        assert all(all(right) for right in threads.map(ask, NAMES))


def rounds(engine: Any, between: Any = lambda: None) -> list[VerifiedDrafts]:
    """Two prompts drafted for four rounds, of which the judge keeps what it likes."""
    prompts = (np.arange(3, 9), np.arange(5, 8))
    rows_b, rng, past, found = np.arange(2), np.random.default_rng(0), [], []
    last_b = np.array([prompt[-1] for prompt in prompts])
    for number in range(4):
        asked = DraftRequest(
            f"r{number}",
            "writer",
            0,
            prompts,
            tuple(past),
            rows_b,
            last_b,
            rng.integers(0, NUM_TOKENS, (2, 3)),
            np.full(2, 0.5),
            top_k=NUM_TOKENS // 2,
            nucleus=None,
            decoding=GREEDY,
        )
        between()
        verified = engine.verify(asked)
        found.append(replace(verified, compute_s=0.0))
        kept_b = np.minimum(verified.num_kept_b + 1, 3)
        past.append(Round(rows_b, asked.read_bG, kept_b))
        kept_all = verified.replacement_b < 0
        last_b = np.where(kept_all, asked.drafts_bG[:, -1], verified.replacement_b)
    return found


def test_a_judges_cache_is_its_own_adapters(root: Path) -> None:
    """The same writer has its drafts judged by both, one round of each at a time."""
    together = shared(root)
    expected = {name: rounds(engine_alone(root, name)) for name in NAMES}
    assert repr(expected[NAMES[0]]) != repr(expected[NAMES[1]])
    first, second = (together[name] for name in NAMES)
    others: list[VerifiedDrafts] = []
    found = rounds(first, between=lambda: others.append(rounds(second)[-1]))
    assert repr(found) == repr(expected[NAMES[0]])
    assert all(repr(other) == repr(expected[NAMES[1]][-1]) for other in others)
    assert found[-1].num_replayed == 0, "nothing is read twice for another adapter's sake"


def test_each_writes_as_it_does_alone(root: Path) -> None:
    together = shared(root)
    asked = GenerationRequest(
        "w", (np.arange(2, 6), np.arange(3)), (8, 8), (0,), np.zeros(2, np.uint64), GREEDY
    )
    for name in (*NAMES, NAMES[0]):
        found, expected = together[name].write(asked), engine_alone(root, name).write(asked)
        assert all(map(np.array_equal, found.texts, expected.texts))


def test_a_mixtures_gates_are_wrapped_once_for_all(root: Path) -> None:
    """Who is asked stays each teacher's own, and so do the gates that a request brings."""
    sar = StudentAwareRouter(lr=1e-2)
    moes = dict(zip(NAMES, (AllExperts(), OwnRouting()), strict=True))
    specs = [spec(root, name, "mixture", wire=DENSE, moe=moes[name]) for name in NAMES]
    together = open_backends(specs)
    own = {n: engine_alone(root, n, "mixture", wire=DENSE, moe=moes[n]) for n in NAMES}
    student_PV = np.zeros((int(request().counts_B.sum()), NUM_TOKENS), np.float32)
    states = []
    for engine in (together[NAMES[0]], own[NAMES[0]]):
        optimizer = GateOptimizer(engine.call(GateStateRequest()), sar)
        gradient = engine.gate_gradient(GateRequest(request(moe=sar), student_PV))
        states.append(optimizer.step(gradient.values, gradient.num_positions))
    assert np.array_equal(states[0].values, states[1].values)
    for name in (*NAMES, *NAMES):
        found, expected = together[name].answer(request()), own[name].answer(request())
        assert np.array_equal(found.payload, expected.payload)
        assert found.usage is not None and expected.usage is not None
        assert np.array_equal(found.usage.tokens_LE, expected.usage.tokens_LE)
        in_loss = request(moe=sar, gate=states[0])
        assert np.array_equal(
            together[name].answer(in_loss).payload, own[name].answer(in_loss).payload
        )


def test_who_shares_a_process(root: Path) -> None:
    code, prose = (spec(root, name) for name in NAMES)
    whole = ServedTeacher("whole", code.folder, Serving(), NUM_TOKENS, KEY, "language_model")

    def together(*specs: ServedTeacher) -> list[list[str]]:
        return [[s.name for s in group] for group in groups(specs)]

    assert together(code, whole, prose) == [["code", "prose.v2"], ["whole"]]
    roundabout = replace(prose, name="roundabout", folder=str(root / "code" / ".." / "base"))
    assert together(code, roundabout) == [["code", "roundabout"]]
    other_wire = spec(root, "prose.v2", wire=DenseWire(), moe=AllExperts())
    assert together(code, other_wire) == [["code", "prose.v2"]]
    for changed in (
        {"replicas": 2},
        {"dtype": "bfloat16"},
        {"num_cpus": 2.0},
        {"num_gpus": 1.0},
        {"node_labels": {"role": "teacher"}},
        {"max_batch_tokens": 5},
    ):
        other = spec(root, "prose.v2", **changed)
        assert together(code, other) == [["code"], ["prose.v2"]], changed
