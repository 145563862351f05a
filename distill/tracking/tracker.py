"""One MLflow run for the distilled student, and a child run for each row of the comparison."""

import json
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from distill.config import Experiment, Tracking
from distill.config.values import flatten, masked
from distill.errors import Interrupted, TeacherAway, UnreachableError
from distill.metrics import known, of_task
from distill.objectives import WeightedSum
from distill.tracking.outbox import Outbox, Record
from distill.tracking.runs import DEFAULT_EXPERIMENT, resume_run, start_run
from distill.tracking.sender import Sender
from distill.tracking.store import (
    impatient,
    import_mlflow,
    is_refusal,
    open_command,
    reason_of,
    resolve_uri,
    silence_of,
)
from distill.tracking.view import (
    KIND,
    NOTE,
    VIEW_TAG,
    child_note,
    experiment_note,
    run_note,
    view_state,
)

if TYPE_CHECKING:
    from distill.records import Line

MAX_DIGEST_CHARS = 36
KEPT = "untracked.jsonl"
"""In a run's folder: records that are not in MLflow yet."""
logger = logging.getLogger(__name__)


def not_reachable(tracking: Tracking, output: str | Path, reason: str) -> str:
    """The line about a server that does not respond when a run starts."""
    return (
        f"MLflow at {masked(resolve_uri(tracking))} does not respond ({reason}): records are kept "
        f"in {Path(output) / KEPT} and sent once it does, in this run or by the same command later"
    )


def silence_lines(tracking: Tracking) -> "list[Line]":
    """Of the plan: a server that does not respond now. Raises UnreachableError as
    :func:`silence_of`."""
    from distill.records import Line

    reason = silence_of(tracking)
    return (
        [] if reason is None else [Line("MLflow", f"does not respond ({reason})", "kept records")]
    )


class Tracker:
    """Records a run in MLflow; a store that fails later never stops the training.

    A resumed training continues its run (``<output>/mlflow_run_id``). What cannot be recorded waits
    in ``<output>/untracked.jsonl`` and is sent when the store is reachable again, or by the
    resumed run. With a server that does not respond at first, the run in MLflow is started with
    the first record that it takes; ``run_id`` is empty until then.
    """

    def __init__(self, tracking: Tracking, output: str | Path, retry_s: float = 30.0) -> None:
        self.tracking = tracking
        self.output = Path(output)
        self.uri = resolve_uri(tracking)
        self.retry_s = retry_s
        self.run_id = ""
        self.experiment_id = ""
        self._began = int(time.time() * 1000)
        self._monitor: Any = None
        self._sender: Sender | None = None
        self._outbox: Outbox

    @property
    def num_kept(self) -> int:
        """Records that are not in MLflow yet."""
        return self._outbox.num_kept

    @property
    def open_command(self) -> str:
        """The command that starts MLflow's server, and the links to the runs, a line each."""
        return open_command(self.uri, self.experiment_id)

    def __enter__(self) -> "Tracker":
        self.output.mkdir(parents=True, exist_ok=True)
        self._outbox = Outbox(self.output / KEPT, self._send, self.retry_s)
        if silence_of(self.tracking) is not None:
            self._outbox.hold()
            return self
        try:
            self._open()
        except Exception as error:
            if is_refusal(error):
                raise UnreachableError(
                    f"tracking.uri {masked(self.uri)}: the run cannot be started: "
                    f"{reason_of(error)}"
                ) from None
            self._outbox.hold()
            return self
        self._outbox.flush()
        return self

    def _send(self, record: Record) -> Any:
        """The outbox's; starts the run where that has not been possible so far."""
        if self._sender is None:
            with impatient():
                self._open()
        assert self._sender is not None
        return self._sender(record)

    def _open(self) -> None:
        """Start the run, or find the one to continue; raises what MLflow raises."""
        id_file = self.output / "mlflow_run_id"
        client = import_mlflow().MlflowClient(self.uri)
        resumed = resume_run(client, id_file)
        run = resumed or start_run(client, self.uri, self.tracking, self.output, self._began)
        self.run_id, self.experiment_id = run.info.run_id, run.info.experiment_id
        id_file.write_text(self.run_id, encoding="utf-8")
        self._sender = Sender(client, self.uri, self.experiment_id, self.run_id)
        if self.tracking.system_metrics:
            self._watch_system(is_resumed=resumed is not None)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        status, why = _ending(error)
        self._outbox.flush()  # may start the run, and with it the monitor
        if self._monitor is not None:
            self._monitor.finish()
        self._outbox.post({"kind": "end", "status": status, "why": why})
        if self.num_kept:
            logger.warning(
                "%d records are not in MLflow; they are in %s; the same command sends them",
                self.num_kept,
                self._outbox.path,
            )

    def describe(self, experiment: Experiment) -> None:
        """Notes on the experiment and the run, and the columns and charts that MLflow opens with.

        A note that is there already is kept: a person may have edited it.
        """
        name = self.tracking.experiment or DEFAULT_EXPERIMENT
        measures = of_task(experiment.task)
        notes = KIND | {NOTE: masked(experiment_note(name, measures))}
        view = {VIEW_TAG: view_state(measures)}
        self._outbox.post({"kind": "experiment", "new": notes, "values": view})
        if isinstance(experiment.objective, WeightedSum):  # the column of all runs
            self.params({"objective.type": experiment.objective.type})
        note = masked(run_note(experiment, str(self.output)))
        self._outbox.post({"kind": "note", "text": note})

    def params(self, values: Mapping[str, Any]) -> None:
        """A configuration, nested or flat. A value that differs on resuming becomes a tag."""
        self._outbox.post({"kind": "params", "values": flatten(values)})

    def metrics(
        self, values: Mapping[str, float | None], step: int, time: float | None = None
    ) -> None:
        self.lines([{"step": step, "time": time, "metrics": values}])

    def lines(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Lines of a metrics.jsonl, in one request a thousand values."""
        rows = _rows(lines)
        if rows:
            self._outbox.post({"kind": "metrics", "rows": rows})

    def tags(self, values: Mapping[str, object]) -> None:
        self._outbox.post({"kind": "tags", "values": {k: str(v) for k, v in values.items()}})

    def dataset(
        self, name: str, fingerprint: str, source: str, context: str, num_rows: int | None = None
    ) -> None:
        """One split as an input of the run; ``context`` is train, transfer, validation or test."""
        profile = {"num_rows": num_rows, "fingerprint": fingerprint}
        # MLflow joins inputs of one name and digest, so the split is in the name.
        self._outbox.post(
            {
                "kind": "dataset",
                "context": context,
                "name": f"{name}.{context}",
                "digest": fingerprint[:MAX_DIGEST_CHARS],
                "source": masked(source),
                "profile": json.dumps({k: v for k, v in profile.items() if v is not None}),
            }
        )

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        """A file or a folder."""
        self._outbox.post({"kind": "artifact", "path": str(Path(path).absolute()), "to": folder})

    def figure(self, path: str | Path) -> None:
        self.artifact(path, "figures")

    def child(
        self,
        name: str,
        params: Mapping[str, Any],
        metrics: Mapping[str, float | None],
        tags: Mapping[str, object] | None = None,
        history: Iterable[Mapping[str, Any]] = (),
        step: int = 0,
        status: Literal["FINISHED", "FAILED"] = "FINISHED",
    ) -> str | None:
        """An ended run under this one; the same name again updates it. Returns its id.

        ``step``: of ``metrics``. MLflow shows the value with the highest step.
        """
        flat = flatten(params)
        rows = _rows([*history, {"step": step, "time": None, "metrics": metrics}])
        note = child_note(str((tags or {}).get("role", "")), flat)
        all_tags = {NOTE: note} | dict(tags or {}) if note else dict(tags or {})
        return self._outbox.post(
            {
                "kind": "child",
                "name": name,
                "params": flat,
                "rows": rows,
                "tags": {k: str(v) for k, v in all_tags.items()},
                "status": status,
            }
        )

    def register(self, child: str, folder: str | Path, name: str, alias: str) -> str | None:
        """A child's student as the next version of a registered model, under an alias."""
        path = str(Path(folder).absolute())
        return self._outbox.post(
            {"kind": "register", "child": child, "folder": path, "name": name, "alias": alias}
        )

    def model(self, folder: str | Path, name: str) -> str | None:
        """An exported Hugging Face folder as an MLflow model. Returns its URI."""
        path = str(Path(folder).absolute())
        return self._outbox.post({"kind": "model", "folder": path, "name": name})

    def _watch_system(self, is_resumed: bool) -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._monitor = SystemMetricsMonitor(
            self.run_id, resume_logging=is_resumed, tracking_uri=self.uri
        )
        self._monitor.start()


def _rows(lines: Iterable[Mapping[str, Any]]) -> list[tuple[str, float, int, int]]:
    """(key, value, milliseconds, step); a missing value is left out, NaN is kept as NaN."""
    now = time.time()
    lines = list(lines)
    known({name for line in lines for name in line["metrics"]})
    return [
        (name, float(value), int((line.get("time") or now) * 1000), int(line["step"]))
        for line in lines
        for name, value in line["metrics"].items()
        if value is not None
    ]


def _ending(error: BaseException | None) -> tuple[str, str]:
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return "FINISHED", "finished"
    if isinstance(error, TeacherAway):
        return "KILLED", f"stopped, a teacher stayed away: {reason_of(error)}"
    if isinstance(error, KeyboardInterrupt | Interrupted):
        return "KILLED", f"stopped by the user {reason_of(error) if str(error) else ''}".strip()
    return "FAILED", f"{type(error).__name__}: {reason_of(error)}"
