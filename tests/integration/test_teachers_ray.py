"""Teachers as real Ray actors over real (tiny) BERT folders."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from distill.config import Serving, Stream
from distill.errors import ModelError, TeacherAnswerError, TeacherAway, TeacherError
from distill.records import UNLABELLED, Batch, Cursor
from distill.teachers.local import LocalTeachers
from distill.teachers.requests import TeacherRequest
from distill.teachers.served import ServedTeacher
from distill.teachers.stream import TeacherStream
from distill.teachers.waiting import outage
from distill.training.fit import fit, load_best
from tests.sampling.test_fits import SKD, sampled_job
from tests.toys_teachers import backend_of

pytestmark = pytest.mark.slow

NUM_LABELS = 3
TRANSPORTS = ["object_store", *(["nixl"] if find_spec("nixl") else [])]
HANGS_S = 1500
"""A deadline that ends only what hangs."""
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(40))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    found = {}
    for seed, name in enumerate(("movies", "books")):
        folder = tmp_path_factory.mktemp(name)
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=len(WORDS),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            num_labels=NUM_LABELS,
        )
        BertForSequenceClassification(config).save_pretrained(folder)
        (folder / "vocab.txt").write_text("\n".join(WORDS))
        BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
        found[name] = folder
    return found


class RowTokens:
    """Row r is r % 6 + 2 words."""

    def lengths(self, rows):
        return np.asarray(rows) % 6 + 2

    def padded(self, rows):
        lengths = self.lengths(rows)
        mask_BT = (np.arange(lengths.max())[None] < lengths[:, None]).astype(np.int64)
        ids_BT = (5 + (np.asarray(rows)[:, None] * 7 + np.arange(lengths.max())) % 40) * mask_BT
        return TeacherRequest("", np.asarray(rows), ids_BT, mask_BT)


class RowBatches:
    steps_per_epoch = 100

    def at(self, step: int) -> list[Batch]:
        rows_B = np.arange(step * 8, step * 8 + 8)
        ids_BT = torch.from_numpy(RowTokens().padded(rows_B).input_ids_BT)
        return [
            Batch(
                rows_B=rows_B,
                input_ids_BT=ids_BT,
                attention_mask_BT=(ids_BT != 0).long(),
                labels_B=torch.full((8,), UNLABELLED),
                domains_B=torch.full((8,), -1),
                valid_B=torch.ones(8, dtype=torch.bool),
                num_valid=8,
                num_labelled=0,
            )
        ]


def specs(folders, **replicas):

    def spec(name: str) -> ServedTeacher:
        serving = Serving(num_cpus=0.1, replicas=replicas.get(name, 1))
        return ServedTeacher(name, str(folders[name]), serving, NUM_LABELS)

    return [spec(name) for name in folders]


def stream(client, in_flight: int = 4) -> TeacherStream:
    tokens = dict.fromkeys(client.names, RowTokens())
    teachers = [ServedTeacher(name, "", Serving(), NUM_LABELS) for name in client.names]
    return TeacherStream(client, teachers, tokens, in_flight=in_flight)


def request(first: int = 0) -> TeacherRequest:
    rows_B = np.arange(first, first + 4)
    tokens = RowTokens().padded(rows_B)
    return TeacherRequest(f"test/{first}", rows_B, tokens.input_ids_BT, tokens.attention_mask_BT)


def logits(steps) -> list[torch.Tensor]:
    return [answers.logits_KBV for step in steps for _, answers in step.parts]


@pytest.fixture(scope="module")
def local_logits(folders) -> list[torch.Tensor]:
    torch.set_num_threads(1)  # as an actor of one CPU has
    engines = {n: backend_of(f, num_labels=NUM_LABELS) for n, f in folders.items()}
    with stream(LocalTeachers(engines)) as local:
        return logits(local.feed(RowBatches(), 0, 30))


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_pool_answers_as_local_engines_do_and_a_killed_replica_changes_nothing(
    ray_cluster, folders, local_logits, transport
):
    """And when no replica is left the error is bounded and names the teacher."""
    import ray

    from distill.teachers.replica_pool import RayTeacherPool

    with RayTeacherPool(specs(folders, movies=2), transport=transport) as pool:
        client = pool.client(Stream(deadline_s=HANGS_S, transport=transport), rank=1)
        if transport == "object_store":
            with pytest.raises(ValueError, match="object_store"):
                pool.client(Stream(transport="nixl"))
        with stream(client) as served:
            undisturbed = logits(served.feed(RowBatches(), 0, 30))
            assert_idle([os.getpid(), *pool.pids("movies"), *pool.pids("books")])
            if transport == TRANSPORTS[-1]:
                assert_works_in_another_process(pool, client)
            disturbed = []
            for step in served.feed(RowBatches(), 0, 30):
                disturbed += logits([step])
                if step.step == 5:
                    os.kill(pool.pids("movies")[1], signal.SIGKILL)
                if step.step == 15:  # no other replica: its restart is waited for
                    os.kill(pool.pids("books")[0], signal.SIGKILL)
            timings = served.timings()
        assert_listens_on_the_loopback_alone()
        (actor,) = pool._served[1].actors
        ray.kill(actor, no_restart=True)
        with pytest.raises(TeacherError, match=r"teacher 'books' did not respond to .* no replica"):
            client.call("books", request())  # long before the client's deadline
        assert_idle([os.getpid()])
    assert all(map(torch.equal, undisturbed, local_logits))
    assert all(map(torch.equal, disturbed, local_logits))
    assert timings["teacher.books.retries"] >= 1


def assert_works_in_another_process(pool, client) -> None:
    """By every transport that the pool has."""
    import ray

    def rank(clients, asked):
        return [client.call("books", asked).payload for client in clients]

    here = client.call("books", request()).payload
    clients = [pool.client(Stream(transport=transport), rank=3) for transport in TRANSPORTS]
    for there in ray.get(ray.remote(rank).remote(clients, request())):
        assert np.array_equal(here, there)


def test_a_teacher_away_for_three_deadlines_while_it_judges_drafts_changes_nothing(
    ray_cluster, tmp_path
):
    """From the third step: its process is stopped, then killed, and its caches are gone with it."""
    from distill.teachers.replica_pool import RayTeacherPool

    here = sampled_job(tmp_path, "here", SKD)
    fit(here)
    job = sampled_job(tmp_path, "served", SKD)
    trainer = job.trainer.model_copy(update={"keep_checkpoints": 99})
    job = replace(job, trainer=trainer)
    with RayTeacherPool(job.teacher_setup.teachers) as pool:
        stream = Stream(deadline_s=1, recovery_s=HANGS_S)

        def kill(pids: list[int]) -> None:
            while (noticed := outage(Path(job.folder))) is None:
                time.sleep(0.05)
            time.sleep(max(0.0, noticed.noticed + 2 * stream.deadline_s - time.time()))
            for pid in pids:
                os.kill(pid, signal.SIGKILL)

        def stop(cursor: Cursor) -> None:
            if cursor.step == 2:
                pids = pool.pids("films")
                for pid in pids:
                    os.kill(pid, signal.SIGSTOP)
                threading.Thread(target=kill, args=[pids], daemon=True).start()

        teacher_setup = replace(job.teacher_setup, client=pool.client(stream), stream=stream)
        fit(replace(job, teacher_setup=teacher_setup), report=stop)
    ours, theirs = (load_best(one).student.state_dict() for one in (here, job))
    assert all(torch.equal(theirs[name], tensor) for name, tensor in ours.items())
    text = (Path(job.folder) / "metrics.jsonl").read_text().splitlines()
    retries = [json.loads(line)["metrics"].get("teacher.films.retries", 0) for line in text]
    assert sum(retries) >= 1
    assert (Path(job.folder) / "checkpoints" / "step-00000002").exists()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_replicas_that_hang_and_refused_answers(ray_cluster, tmp_path, transport):
    """A queue of many deadlines is waited for; a forward that hangs is sent to the other replica;
    when both hang the teacher is away, and then given up."""
    from distill.teachers.replica_pool import RayTeacherPool

    hung, both, released = (tmp_path / name for name in ("hung", "both", "released"))

    def sick(input_ids, attention_mask):
        """Row 0 hangs in the first process that has it, and from ``both`` on in each; then not a
        number."""
        if input_ids[0, 0] != 5:
            time.sleep(0.2)
            return torch.zeros(len(input_ids), NUM_LABELS)
        if not hung.exists():
            hung.write_text(str(os.getpid()))
        while not released.exists() and (both.exists() or hung.read_text() == str(os.getpid())):
            time.sleep(0.05)
        return torch.full((len(input_ids), NUM_LABELS), torch.nan)

    spec = ServedTeacher("sick", "", Serving(num_cpus=0.1, replicas=2), NUM_LABELS, model=sick)
    with RayTeacherPool([spec], transport=transport) as pool:
        client = pool.client(Stream(deadline_s=0.5, recovery_s=1, transport=transport))
        with pytest.raises(TeacherAnswerError, match="NaN"):
            client.call("sick", request())
        assert client.stats()["teacher.sick.retries"] == 1
        with ThreadPoolExecutor(8) as threads:  # 1.6 s at the other replica
            list(threads.map(lambda i: client.call("sick", request(4 * i)), range(1, 9)))
        counts = client.stats()
        assert (counts["teacher.sick.requests"], counts["teacher.sick.retries"]) == (8, 0)
        assert client.away() is None
        both.touch()
        with pytest.raises(
            TeacherAway, match=r"'sick' did not respond to request test/0; no .* finished no forw"
        ):
            client.call("sick", request())
        assert re.match(r"teacher 'sick': it holds .* finished no forward", client.away() or "")
        released.touch()
        os.kill(int(hung.read_text()), signal.SIGSTOP)
        with pytest.raises(TeacherAnswerError, match="NaN"):
            pool.client(Stream(deadline_s=0.5, transport=transport)).call("sick", request())
        os.kill(int(hung.read_text()), signal.SIGCONT)
        client = pool.client(Stream(deadline_s=HANGS_S, retries=1, transport=transport))
        with pytest.raises(TeacherAnswerError, match="NaN") as caught:
            client.call("sick", request())
        assert type(caught.value) is TeacherAnswerError
        assert client.stats()["teacher.sick.retries"] == 0
        assert client.away() is None


def test_a_folder_that_cannot_be_loaded_is_refused_in_its_own_words(ray_cluster, folders, tmp_path):
    from distill.teachers.replica_pool import RayTeacherPool

    folder = tmp_path / "cut"
    shutil.copytree(folders["movies"], folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError) as here:
        backend_of(str(folder), num_labels=NUM_LABELS)
    with pytest.raises(ModelError) as there:
        RayTeacherPool([ServedTeacher("cut", str(folder), Serving(), NUM_LABELS)])
    assert str(there.value) == str(here.value)


def test_resources_that_are_not_there_are_named_and_nothing_is_left(ray_cluster, folders):
    import ray

    from distill.teachers.replica_pool import RayTeacherPool

    num_cpus = ray.cluster_resources()["CPU"]
    good, big = specs(folders)
    big = ServedTeacher("big", big.folder, Serving(num_cpus=64), NUM_LABELS)
    with pytest.raises(TeacherError, match=r"teacher 'big' needs 1 × .64 CPU") as caught:
        RayTeacherPool([big, good], start_deadline_s=2)  # big first: its wait ends at the deadline
    assert f"has {num_cpus:g} CPU" in str(caught.value)
    labelled = ServedTeacher(
        "far", good.folder, Serving(node_labels={"role": "teacher"}), NUM_LABELS
    )
    with pytest.raises(TeacherError, match=r"labels {'role': 'teacher'}"):
        RayTeacherPool([labelled], start_deadline_s=2)
    deadline = time.monotonic() + HANGS_S
    while ray.available_resources().get("CPU") != num_cpus and time.monotonic() < deadline:
        time.sleep(0.2)
    assert ray.available_resources()["CPU"] == num_cpus


def test_a_local_cluster_listens_on_the_loopback_alone_and_keeps_its_token(ray_cluster):
    assert os.environ["RAY_AUTH_MODE"] == "token"
    kept = Path.home() / ".ray" / "auth_token"  # of a cluster of the user's, or not there
    assert not kept.exists() or kept.read_text().strip() != os.environ["RAY_AUTH_TOKEN"]
    if shutil.which("ss") is None or shutil.which("ps") is None:
        pytest.skip("ss or ps is not installed")
    assert_listens_on_the_loopback_alone()


def assert_listens_on_the_loopback_alone() -> None:
    if shutil.which("ss") is None or shutil.which("ps") is None:
        return
    lines = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout
    family = descendants(os.getpid())
    ours = [
        line.split()[3]
        for line in lines.splitlines()
        if family & {int(pid) for pid in re.findall(r"pid=(\d+)", line)}
    ]
    assert len(ours) >= 5
    assert all("127.0.0.1" in address for address in ours), ours


def assert_idle(pids: list[int]) -> None:
    """Who waits does not compute: nixl's threads poll without a pause if they are let."""

    def spent() -> list[float]:
        times = [psutil.Process(pid).cpu_times() for pid in pids]
        return [one.user + one.system for one in times]

    before = spent()
    time.sleep(1)
    assert all(after - start < 0.5 for start, after in zip(before, spent(), strict=True))


def descendants(root: int) -> set[int]:
    """Of a process, itself among them: other Rays of this machine are not ours."""
    table = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
    parents = {int(pid): int(parent) for pid, parent in map(str.split, table.stdout.splitlines())}
    found = {root}
    while grown := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= grown
    return found
