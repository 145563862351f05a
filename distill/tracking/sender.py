"""One record, as the outbox keeps it, to calls of MLflow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.config.values import cut, masked, safe_name, written_tag
from distill.tracking.model import log_model, register_model
from distill.tracking.outbox import Record
from distill.tracking.runs import ENDED
from distill.tracking.view import NOTE

if TYPE_CHECKING:
    from mlflow import MlflowClient

METRICS_PER_BATCH = 1000
PARAMS_PER_BATCH = 100
MAX_TAG_CHARS = 8000
PARENT = "mlflow.parentRunId"


class Sender:
    """Writes records to one run and its children; raises what MLflow raises."""

    def __init__(self, client: MlflowClient, uri: str, experiment_id: str, run_id: str) -> None:
        self.client = client
        self.uri = uri
        self.experiment_id = experiment_id
        self.run_id = run_id
        self._named: set[tuple[str, str]] = set()  # run, name: its tag is there

    def __call__(self, record: Record) -> Any:
        kind = record["kind"]
        if kind == "params":
            self._send_params(self.run_id, record["values"])
        elif kind == "metrics":
            self._send_metrics(self.run_id, record["rows"])
        elif kind == "tags":
            self._send_tags(self.run_id, record["values"])
        elif kind == "experiment":
            self._send_experiment(record["new"], record["values"])
        elif kind == "note":
            if NOTE not in self.client.get_run(self.run_id).data.tags:
                self._send_tags(self.run_id, {NOTE: record["text"]})
        elif kind == "dataset":
            self._send_dataset(record)
        elif kind == "artifact":
            is_folder = Path(record["path"]).is_dir()
            log = self.client.log_artifacts if is_folder else self.client.log_artifact
            log(self.run_id, record["path"], record["to"])
        elif kind == "child":
            return self._send_child(record)
        elif kind == "model":
            folder, name = Path(record["folder"]), record["name"]
            return log_model(self.client, self.uri, self.experiment_id, self.run_id, folder, name)
        elif kind == "register":
            return self._register(record)
        elif kind == "end":
            self._send_tags(self.run_id, {ENDED: record["why"]})
            self.client.set_terminated(self.run_id, record["status"])
        return None

    def _send_params(self, run_id: str, values: Mapping[str, str | float]) -> None:
        from mlflow.entities import Param

        self._send_names(run_id, values)
        before = self.client.get_run(run_id).data.params
        named = {safe_name(key): str(value) for key, value in values.items()}
        new = [Param(key, value) for key, value in named.items() if key not in before]
        for start in range(0, len(new), PARAMS_PER_BATCH):
            self.client.log_batch(run_id, params=new[start : start + PARAMS_PER_BATCH])
        # MLflow never changes a parameter, so a value that differs on resuming is a tag.
        changed = {k: v for k, v in named.items() if before.get(k, v) != v}
        self._send_tags(run_id, {f"resumed.{key}": value for key, value in changed.items()})

    def _send_metrics(self, run_id: str, rows: list[tuple[str, float, int, int]]) -> None:
        from mlflow.entities import Metric

        self._send_names(run_id, (name for name, *_ in rows))
        for start in range(0, len(rows), METRICS_PER_BATCH):
            part = rows[start : start + METRICS_PER_BATCH]
            batch = [Metric(safe_name(name), value, time, step) for name, value, time, step in part]
            self.client.log_batch(run_id, metrics=batch)

    def _send_names(self, run_id: str, names: Iterable[str]) -> None:
        """Names that MLflow does not accept, as tags: a report shows the original names."""
        new = {name for name in names if (run_id, name) not in self._named}
        replaced = {name: safe_name(name) for name in new if safe_name(name) != name}
        self._send_tags(run_id, {written_tag(safe): name for name, safe in replaced.items()})
        self._named |= {(run_id, name) for name in new}

    def _send_tags(self, run_id: str, values: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(safe_name(k), cut(masked(v), MAX_TAG_CHARS)) for k, v in values.items()]
        for start in range(0, len(tags), PARAMS_PER_BATCH):
            self.client.log_batch(run_id, tags=tags[start : start + PARAMS_PER_BATCH])

    def _send_experiment(self, new: Mapping[str, str], values: Mapping[str, str]) -> None:
        """Tags of the experiment: ``new`` where there is none of that name, ``values`` always."""
        there = self.client.get_experiment(self.experiment_id).tags
        for key, value in ({k: v for k, v in new.items() if k not in there} | dict(values)).items():
            self.client.set_experiment_tag(self.experiment_id, key, value)

    def _send_dataset(self, record: Record) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        scheme, is_uri, _ = record["source"].partition("://")
        dataset = Dataset(
            record["name"],
            record["digest"],
            source_type=scheme if is_uri and scheme != "file" else "local",
            source=json.dumps({"uri": record["source"]}),
            profile=record["profile"],
        )
        context = InputTag("mlflow.data.context", record["context"])
        self.client.log_inputs(self.run_id, [DatasetInput(dataset, [context])])

    def _send_child(self, record: Record) -> str:
        run_id = self._find_child(record["name"], record["tags"].get("role"))
        if run_id is None:
            tags = {PARENT: self.run_id}
            run = self.client.create_run(self.experiment_id, tags=tags, run_name=record["name"])
            run_id = run.info.run_id
        self._send_params(run_id, record["params"])
        self._send_tags(run_id, record["tags"])
        self._send_metrics(run_id, record["rows"])
        # Records kept by an older version have no status.
        self.client.set_terminated(run_id, record.get("status", "FINISHED"))
        return run_id

    def _register(self, record: Record) -> str:
        """The version's number. A child that is registered already keeps its version."""
        run_id = self._find_child(record["child"])
        assert run_id is not None, f"{record['child']} is recorded before it is registered"
        name = record["name"]
        found = self.client.search_model_versions(f"name = '{name}'")
        version = next((v.version for v in found if v.run_id == run_id), None)
        if version is None:
            folder = Path(record["folder"])
            model = log_model(
                self.client, self.uri, self.experiment_id, run_id, folder, record["child"]
            )
            version = register_model(self.client, self.uri, model, name)
        self.client.set_registered_model_alias(name, record["alias"], version)
        return str(version)

    def _find_child(self, name: str, role: str | None = None) -> str | None:
        """``role``: of that one alone, so that an expert is not the ensemble of its name."""
        children = self.client.search_runs(
            [self.experiment_id], f"tags.`{PARENT}` = '{self.run_id}'"
        )
        named = (r for r in children if r.info.run_name == name)
        found = (r for r in named if role is None or r.data.tags.get("role", role) == role)
        return next((r.info.run_id for r in found), None)
