"""The output folder of an experiment: its files, and its lock.

<output>/experiment.json   the experiment that the folder belongs to
<output>/config.yaml       the configuration of the last start
<output>/experts/<name>/   fits of experts and router      <output>/baselines/<name>/
<output>/experts/names.json   folder → name, of experts that no folder can be called like
<output>/links/<i>/        fits of a chain's intermediate links, exported in model/
<output>/links/chain.json  which links are kept, and why: see driver/chain_links.py
<output>/fit/              the distilled student's checkpoints, metrics and best weights
<output>/cache/            teacher outputs                 <output>/student/   the export
<output>/report/           table and plots         <output>/finished.json   see driver/finished.py
<output>/warm_start.json   values by past runs     <output>/brief/<name>/   their fits
<output>/trials/<name>/    of a sweep, instead of fit/ and student/: see search/ledger.py
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterable
from itertools import count, pairwise
from pathlib import Path
from typing import IO, Any

from distill.config import Experiment, parse
from distill.config.chain import link_name
from distill.config.tasks import task_named
from distill.config.values import flatten, masked
from distill.config.yaml_text import read_yaml, write_yaml
from distill.errors import RunFolderError
from distill.names import folder_name
from distill.wording import counted

OPERATIONAL: tuple[str, ...] = (
    "output",
    "tracking",
    "cluster",
    "stream",
    "cache",
    "memory",
    "data.path",
    "data.cache_dir",
    "data.chat_template",  # what the file holds is in the data's fingerprint
    "trainer.num_workers",
    "trainer.num_cpus_per_worker",
    "trainer.num_threads_cached",  # what was decided is kept with the fit: see training/threads.py
    "trainer.num_gpus_per_worker",
    "trainer.node_labels",
    "experts.node_labels",
    "trainer.max_failures",
    "trainer.keep_checkpoints",
    "trainer.checkpoint_every",
    "trainer.log_every",
    "trainer.gradient_checkpointing",
    "trainer.loss_chunk_mb",
    "generation",
    "baselines",
    "search",
)
"""Keys that say where and how a run happens, not what it computes: resuming may change them."""

DATA = "data.fingerprint"
"""In an identity: of the rows as they were read, of a language model of its blocks of tokens."""

NEWER: dict[str, str] = {
    "data.cut": "head",
    "data.unlabelled": "error",
    "experts.router.targets": "partition",
    "aggregation.allow_pickle": "false",
    "aggregation.per": "null",
    "task": "classification",
    "data.packing": "true",
    "data.max_unlearnable": "0.01",
    "data.template_arguments": "{}",
    "data.prompt_as_chat": "false",
    "student.init_from.keep": "first",
    "sampling.type": "dataset",
    "sampling.staleness": "0",
    "kd.schedule.type": "constant",
    "kd.normalise": "tokens",
    "warm_start": "false",
    "chain": "null",
}
"""Keys that older versions did not have, and what they did: folders of theirs can be resumed."""

SHOWN_KEYS = 3
"""Of an experiment that differs from the folder's, in a message."""

OPERATIONAL_SERVING = (
    "replicas",
    "num_cpus",
    "num_gpus",
    "node_labels",
    "max_batch_tokens",
    "kv_cache_mb",
    "offload_idle_s",
    "batch_requests",  # batch shapes are not in a cache's key either
)


class RunFolder:
    """Paths of one run, below ``output``."""

    def __init__(self, output: str | Path) -> None:
        self.root = Path(output).absolute()
        self.experts = self.root / "experts"
        self.baselines = self.root / "baselines"
        self.brief = self.root / "brief"
        self.links = self.root / "links"
        self.fit = self.root / "fit"
        self.tokenizer = self.root / "tokenizer"
        self.student = self.root / "student"
        self.report = self.root / "report"
        self.finished = self.root / "finished.json"
        self.stop = self.root / "stop-requested"
        """Exists once the user pressed Ctrl-C; every fit looks for it."""
        self._lock: IO[str] | None = None

    def check(self, identity: dict[str, Any]) -> bool:
        """Whether the folder already holds this experiment.

        Raises RunFolderError where it cannot be written, or belongs to another experiment.
        """
        existing = next(p for p in [self.root, *self.root.parents] if p.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise RunFolderError(
                f"output {self.root} cannot be written ({existing}): set a folder that you can "
                f"write to, as in output=runs/{self.root.name}"
            )
        claim = self.root / "experiment.json"
        if not claim.exists():
            if self.root.exists() and any(self.root.iterdir()):
                raise RunFolderError(
                    f"output {self.root} is a folder with other files: set a new folder, as in "
                    f"output={self._free()}"
                )
            return False
        try:
            claimed = json.loads(claim.read_text())
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{claim} is unreadable ({error}): set another output") from None
        # A key that an older version did not have is null: its default.
        changed = sorted(
            k
            for k in identity.keys() | claimed
            if identity.get(k, "null") != claimed.get(k, "null")
        )
        if changed == [DATA]:
            raise RunFolderError(self._other_data(identity, claimed))
        if changed:
            # Of a language model max_length and the like change the data's fingerprint too.
            named = [k for k in changed if k != DATA]
            pairs = [
                f"{k} is {_shown(identity.get(k))} ({_shown(claimed.get(k))} in the folder)"
                for k in named[:SHOWN_KEYS]
            ]
            if len(named) > SHOWN_KEYS:
                pairs.append(f"and {len(named) - SHOWN_KEYS} more")
            raise RunFolderError(
                f"output {self.root} belongs to another experiment: {'; '.join(pairs)}. Start a "
                f"new run with output={self._free()}, or restore the values to resume that one"
            )
        return True

    def _other_data(self, identity: dict[str, Any], claimed: dict[str, Any]) -> str:
        what = task_named(identity.get("task", NEWER["task"])).fingerprinted
        return (
            f"output {self.root} was started with different data: {what} changed since ({DATA} is "
            f"{identity[DATA][:12]}, {claimed.get(DATA, 'null')[:12]} in the folder). To train on "
            f"the data as it is now, start a new run with output={self._free()}. To resume this "
            "one, restore the data, at any data.path: nothing in the folder is lost"
        )

    def _free(self) -> str:
        """The next folder that is not there yet: ``runs/mine-2`` after ``runs/mine``."""
        stem, dash, number = self.root.name.rpartition("-")
        if not (dash and number.isdigit()):
            stem, number = self.root.name, "1"
        folder = next(
            path
            for path in (self.root.with_name(f"{stem}-{n}") for n in count(int(number) + 1))
            if not path.exists()
        )
        here = Path.cwd()
        return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)

    def claim(self, experiment: Experiment, identity: dict[str, Any]) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock = (self.root / "lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFolderError(
                f"another distill is running in {self.root}: wait for it, or set another output"
            ) from None
        except OSError as error:
            raise RunFolderError(f"output {self.root} cannot be written: {error}") from None
        try:
            claim = json.dumps(identity, indent=1, sort_keys=True)
            partial = self.root / "experiment.partial"
            partial.write_text(claim)
            os.replace(partial, self.root / "experiment.json")
        except OSError as error:
            raise RunFolderError(f"output {self.root} cannot be written: {error}") from None
        config = write_yaml(experiment.model_dump(mode="json"))
        (self.root / "config.yaml").write_text(masked(config))
        self.stop.unlink(missing_ok=True)  # what an earlier Ctrl-C left

    def close(self) -> None:
        """Let another process have the folder; the end of this one does so too."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def keep_expert_names(self, names: Iterable[str]) -> None:
        """Writes next to the experts' folders those of ``names`` that a folder cannot have."""
        replaced = {folder_name(name): name for name in names if folder_name(name) != name}
        if replaced:
            self.experts.mkdir(parents=True, exist_ok=True)
            partial = self.experts / "names.partial"
            partial.write_text(json.dumps(replaced, ensure_ascii=False, indent=1), "utf-8")
            os.replace(partial, self.experts / "names.json")

    def expert_names(self) -> dict[str, str]:
        """What :meth:`keep_expert_names` kept: folder to name."""
        path = self.experts / "names.json"
        return json.loads(path.read_text("utf-8")) if path.exists() else {}

    def kept(self) -> list[str]:
        """What a run that is stopped leaves to resume from: ``films (trained)``, ``student (step
        120)``, ``4 trials (finished)``."""
        names = self.expert_names()
        folders = [*sorted(self.experts.glob("*/")), *sorted(self.baselines.glob("*/"))]
        fits = {names.get(folder.name, folder.name): folder for folder in folders}
        fits |= {f"brief/{folder.name}": folder for folder in sorted(self.brief.glob("*/"))}
        fits |= {link_name(int(fit.name)): fit for fit in self.link_folders()}
        found = [f"{name} ({_state(fit)})" for name, fit in fits.items() if _state(fit)]
        if state := _state(self.fit):
            found.append(f"student ({state})")
        return found + self._kept_trials()

    def link_folders(self) -> list[Path]:
        """Of a chain's intermediate links that were started, in their order."""
        return sorted(self.links.glob("[0-9]*/"), key=lambda folder: int(folder.name))

    def _kept_trials(self) -> list[str]:
        counts: Counter[str] = Counter()
        for path in sorted(self.root.glob("trials/trial-*/trial.json")):
            status = json.loads(path.read_text("utf-8"))["status"]
            if status != "running":
                counts[status] += 1
            elif any(_state(fit) for fit in path.parent.glob("fit*/")):
                counts["with a checkpoint"] += 1
        return [f"{counted(number, 'trial')} ({status})" for status, number in counts.items()]

    def request_stop(self) -> None:
        """Every fit that runs, or would start, checkpoints and ends."""
        self.stop.touch()


def _state(fit: Path) -> str:
    """``trained``, ``step 120``, or nothing where not even a checkpoint is."""
    if (fit / "done.json").exists():
        return "trained"
    checkpoints = sorted((fit / "checkpoints").glob("step-*"))
    return f"step {int(checkpoints[-1].name.removeprefix('step-'))}" if checkpoints else ""


def configuration_of(run: str | Path) -> Experiment:
    """The configuration of a run, as of its last start. Raises RunFolderError without one."""
    path = Path(run) / "config.yaml"
    if not path.is_file():
        raise RunFolderError(
            f"{run} has no config.yaml: copy the whole run folder, or give its student/"
        )
    return parse(read_yaml(path.read_text(encoding="utf-8")), str(path))


def identity(experiment: Experiment, data_fingerprint: str) -> dict[str, Any]:
    """Flat keys and values of what the experiment computes, with the data's fingerprint."""
    flat = flatten(experiment.model_dump(mode="json"))  # secrets are masked
    operational = _operational(experiment)
    kept = {
        key: value
        for key, value in flat.items()
        if not any(key == skip or key.startswith(f"{skip}.") for skip in operational)
        and not _is_operational_serving(key)
        and NEWER.get(key) != value
        and not (key.endswith("moe.type") and value == "own")  # as before there was another
    }
    return kept | {DATA: data_fingerprint}


def _operational(experiment: Experiment) -> list[str]:
    """OPERATIONAL, but for ``trainer.log_every`` where the temperature follows the mean losses of
    so many steps, perhaps of some trials."""
    searched = experiment.search.space if experiment.search else {}
    # Of whole sections kd those with a schedule: older versions had none.
    may_read_losses = experiment.kd.schedule.reads_losses or any(
        key.startswith("kd.schedule")
        or (key == "kd" and any("schedule" in str(value) for value in domain.ends))
        for key, domain in searched.items()
    )
    decides = {"trainer.log_every"} if experiment.has_teachers and may_read_losses else set()
    return [key for key in OPERATIONAL if key not in decides]


def _is_operational_serving(key: str) -> bool:
    parts = key.split(".")
    return any(
        part in OPERATIONAL_SERVING and (previous == "serving" or parts[0] == "teachers")
        for previous, part in pairwise(parts)
    )


def _shown(value: Any) -> str:
    """For messages: a value of the identity, None where there is none."""
    if value is None:
        return "not set"
    return value if value in ("null", "true", "false") else repr(value)
