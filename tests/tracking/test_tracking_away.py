"""MLflow away when a run starts: records are kept, and sent once it responds."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distill.config import Tracking
from distill.driver.pipeline import opened
from distill.errors import TeacherAway, UnreachableError
from distill.report.progress import Progress
from distill.tracking import KEPT, Tracker, not_reachable, silence_of
from distill.tracking.store import import_mlflow
from tests.toys import toy_experiment
from tests.tracking.test_tracking_store import closed_port


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> str:
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    shutil.copy(empty_store, path)
    return f"sqlite:///{path}"


def tracking(uri: str) -> Tracking:
    return Tracking(uri=uri, experiment="tests", system_metrics=False)


def away() -> Tracking:
    return tracking(f"http://127.0.0.1:{closed_port()}")


def record(tracker: Tracker) -> None:
    tracker.params({"seed": 7})
    tracker.metrics({"loss": 0.5}, step=1)
    assert tracker.child("films", {"role": "expert"}, {"eval.accuracy": 0.9}) is None


def recorded(uri: str, run_id: str) -> tuple[Any, list[Any]]:
    client = import_mlflow().MlflowClient(uri)
    run = client.get_run(run_id)
    of = f"tags.`mlflow.parentRunId` = '{run_id}'"
    return run, client.search_runs([run.info.experiment_id], of)


def test_a_run_without_a_server_is_sent_by_the_next_one(uri: str, tmp_path: Path) -> None:
    with Tracker(away(), tmp_path) as tracker:
        record(tracker)
        assert tracker.run_id == "" and "experiments" not in tracker.open_command
        assert tracker.num_kept == 3
    kept = [json.loads(line)["kind"] for line in (tmp_path / KEPT).read_text().splitlines()]
    assert kept == ["params", "metrics", "child", "end"]
    assert not (tmp_path / "mlflow_run_id").exists()
    with Tracker(tracking(uri), tmp_path) as tracker:
        assert tracker.num_kept == 0 and not (tmp_path / KEPT).exists()
    run, (child,) = recorded(uri, tracker.run_id)
    assert run.data.params == {"seed": "7"} and run.data.metrics == {"loss": 0.5}
    assert child.info.run_name == "films" and child.data.metrics == {"eval.accuracy": 0.9}
    assert run.info.status == "FINISHED"


def test_a_server_that_comes_back_gets_the_run_with_its_beginning(uri: str, tmp_path: Path) -> None:
    with Tracker(away(), tmp_path, retry_s=0) as tracker:
        record(tracker)
        assert tracker.num_kept == 3
        tracker.uri = uri
        tracker.metrics({"loss": 0.4}, step=2)
        assert tracker.num_kept == 0
    run, children = recorded(uri, tracker.run_id)
    assert run.data.metrics == {"loss": 0.4} and len(children) == 1
    assert run.info.start_time <= run.data._metric_objs[0].timestamp


def test_a_server_that_responds_at_the_end_gets_the_whole_run(uri: str, tmp_path: Path) -> None:
    watched = away().model_copy(update={"system_metrics": True})
    with Tracker(watched, tmp_path) as tracker:
        tracker.params({"seed": 7})
        tracker.uri = uri
    assert tracker.num_kept == 0
    run, _ = recorded(uri, tracker.run_id)
    assert run.info.status == "FINISHED"
    assert tracker._monitor._shutdown_event.is_set()  # nothing is recorded after the end


def test_a_run_that_was_recorded_is_continued_after_a_resume_without_a_server(
    uri: str, tmp_path: Path
) -> None:
    with pytest.raises(TeacherAway), Tracker(tracking(uri), tmp_path) as first:
        raise TeacherAway("teacher 'films' was away for 1800 s")
    run, _ = recorded(uri, first.run_id)
    assert run.info.status == "KILLED"
    assert run.data.tags["distill.ended"].startswith("stopped, a teacher stayed away: teacher 'f")
    with Tracker(away(), tmp_path) as second:
        record(second)
    with Tracker(tracking(uri), tmp_path) as third:
        assert third.run_id == first.run_id
    run, children = recorded(uri, first.run_id)
    assert run.data.metrics == {"loss": 0.5} and len(children) == 1
    assert run.info.status == "FINISHED"


@contextlib.contextmanager
def server(status: str) -> Iterator[str]:
    """Answers every request with this status."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with contextlib.suppress(OSError):  # closed at the end
                while True:
                    connection, _ = listener.accept()
                    connection.recv(1 << 16)
                    connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
                    connection.close()

        threading.Thread(target=answer, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("status", ["403 Forbidden", "401 Unauthorized", "404 Not Found"])
def test_a_server_that_refuses_is_an_error_at_once(status: str) -> None:
    with server(status) as address, pytest.raises(UnreachableError, match=address):
        silence_of(tracking(address), 1500)


def test_a_server_that_is_starting_or_overloaded_is_waited_for() -> None:
    for status in ("503 Service Unavailable", "429 Too Many Requests"):
        with server(status) as address:
            assert silence_of(tracking(address), 1500) is not None


@pytest.mark.parametrize(
    "uri",
    [
        "ftp://127.0.0.1/x",
        "htp://127.0.0.1:5000",
        "http://",
        "http://my server",
        "http://127.0.0.1:99999",
        "runs",
    ],
)
def test_an_address_that_cannot_be_right_is_an_error_at_once(uri: str) -> None:
    with pytest.raises(UnreachableError, match=r"tracking\.uri"):
        silence_of(tracking(uri), 1500)


def test_the_line_masks_the_password_and_names_the_file() -> None:
    line = not_reachable(tracking("http://me:hunter2@host"), "runs/films", "Connection refused")
    assert "hunter2" not in line and "\n" not in line
    assert "runs/films/untracked.jsonl" in line and "Connection refused" in line


def opened_lines(root: Path, **changes: Any) -> str:
    import io

    from distill.config import parse

    printed = io.StringIO()
    raw = {**toy_experiment(root), "output": str(root / "run"), **changes}
    with opened(parse(raw), Progress(printed)):
        pass
    return printed.getvalue()


def test_a_run_starts_without_its_server(tmp_path: Path) -> None:
    server = {"uri": away().uri}
    assert "records are kept in" in opened_lines(tmp_path, tracking=server)


def test_a_run_that_decides_by_past_runs_needs_its_server(tmp_path: Path) -> None:
    server = {"uri": away().uri}
    with pytest.raises(UnreachableError, match="Connection refused"):
        opened_lines(tmp_path, tracking=server, warm_start=True)
    assert not (tmp_path / "run").exists()


def test_a_stop_for_a_teacher_names_it_and_what_is_kept(tmp_path: Path) -> None:
    from distill.config import parse

    raw = {**toy_experiment(tmp_path), "output": str(tmp_path / "run")}
    with pytest.raises(TeacherAway) as stop, opened(parse(raw), Progress()) as work:
        work.run.fit.joinpath("checkpoints", "step-00000120").mkdir(parents=True)
        raise TeacherAway("teacher 'films' was away for 1800 s")
    message = str(stop.value)
    assert message.startswith("teacher 'films' was away for 1800 s: stopped; ")
    assert "keeps student (step 120)" in message and "the same command resumes" in message
