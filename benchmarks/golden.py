"""Tiny runs of two revisions, compared: a refactoring changes no weight, no metric and no record.

    python -m benchmarks.golden BASE HEAD

BASE and HEAD are git revisions, or folders of checkouts. Both run by the command line alone, on
this machine, one thread a process, two commands at a time: classification with trained experts, a
language model of two teachers, SKD, SAR and KA, a grid sweep. HEAD also resumes a run that BASE has
begun, reads the teacher outputs that BASE has cached, and loads what BASE has exported. Prints
every difference by name; the exit code is 1 if there is one, and 2 if a command of BASE fails.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import yaml

from benchmarks.golden_compare import Difference, Results, differences, read_results
from benchmarks.golden_inputs import CONFIGS, STORE, write_inputs

REPOSITORY = Path(__file__).parent.parent
OUT = Path(__file__).parent / "results/golden.md"
INPUTS = Path(__file__).parent / "golden_inputs.py"
SIDES = ("base", "head")
ACROSS = ("classification", "language")
"""Runs of BASE that HEAD reads."""
ANSWERS = "answers"
"""The folder of the cache of the run ``language``: see its configuration."""
WIDTH = 80
TIMEOUT_S = 1200
AHEAD = r"#teacher\.[^#]*\.(perplexity|mass_outside)$"
"""Of outputs that are requested ahead of the student: their records depend on timing."""
TRAFFIC = AHEAD + r"|#teacher\.[^#]*\.(rows|cached_rows|requests|bytes)$|tracking\.uri$"
"""Of a run that reads the cache, or continues in the folder, of another one."""
IGNORED = {"language": AHEAD}
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # of a worker group: 2 s
    "RAY_worker_register_timeout_seconds": "600",
    "COLUMNS": str(WIDTH),
}


class CommandFailed(Exception):
    """A command of the command line has another exit code than 0."""


@dataclass(frozen=True)
class Side:
    """Where the code of a revision runs: the same file names below ``root`` for both."""

    name: str
    tree: Path
    root: Path

    @property
    def places(self) -> dict[str, str]:
        return {str(self.root): "ROOT", str(self.tree): "TREE"}

    def at(self, root: Path) -> Side:
        return Side(self.name, self.tree, root)

    def start(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        """``python -m`` with the arguments; its output goes to ``<root>/<name>.out`` and .err."""
        self.root.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(self.tree)}
        environment["DISTILL_CACHE"] = str(self.root / "data-cache")
        with (
            (self.root / f"{name}.out").open("w") as out,
            (self.root / f"{name}.err").open("w") as errors,
        ):
            return subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=self.root,
                env=environment,
                stdout=out,
                stderr=errors,
                text=True,
                start_new_session=True,
            )

    def run(self, name: str, *arguments: str) -> None:
        """Raises CommandFailed. Of ``--json`` the last line is kept as ``<name>.json``."""
        code = self.start(name, *arguments).wait(TIMEOUT_S)
        out = (self.root / f"{name}.out").read_text()
        if code != 0:
            errors = (self.root / f"{name}.err").read_text()
            raise CommandFailed(
                f"{self.name}: python -m {' '.join(arguments)}: exit code {code}\n"
                f"{out[-1500:]}{errors[-3000:]}"
            )
        if "--json" in arguments:
            folder = self.root / f"{name}-output"
            folder.mkdir(exist_ok=True)
            (folder / "output.json").write_text(out.splitlines()[-1])

    def results(self, name: str) -> Results:
        folders = [self.root / name, self.root / f"{name}-output"]
        store = self.root / f"{name}.db"
        return read_results(
            [f for f in folders if f.exists()], store if store.exists() else None, self.places
        )


@dataclass
class Comparison:
    """One line of the table."""

    name: str
    base: Results
    head: Results
    found: list[Difference]
    note: str = ""


def compared(name: str, base: Results, head: Results, ignored: str | None = None) -> Comparison:
    return Comparison(name, base, head, differences(base, head, ignored))


# ---- runs --------------------------------------------------------------------------------------


def train(side: Side, name: str, inputs: Path) -> None:
    write_config(side, name, inputs)
    command = "sweep" if name == "sweep" else "train"
    side.run(name, "distill", command, f"{name}.yaml", "--json")


def write_config(side: Side, name: str, inputs: Path) -> None:
    side.root.mkdir(parents=True, exist_ok=True)
    store = side.root / f"{name}.db"
    shutil.copy(inputs / STORE, store)
    uri = f"sqlite:///{store}"
    raw = CONFIGS[name](inputs) | {"output": name}
    tracking = {"experiment": name, "uri": uri, "system_metrics": False, "log_model": False}
    raw["tracking"] = tracking | raw.get("tracking", {})
    (side.root / f"{name}.yaml").write_text(yaml.safe_dump(raw))


def stop_after_checkpoint(side: Side, name: str, inputs: Path) -> None:
    """Train, and interrupt the run by SIGINT once it has a checkpoint."""
    write_config(side, name, inputs)
    process = side.start(name, "distill", "train", f"{name}.yaml", "--json")
    deadline = time.monotonic() + TIMEOUT_S
    checkpoints = side.root / name / "fit/checkpoints"
    while process.poll() is None and not any(checkpoints.glob("step-*/manifest.json")):
        if time.monotonic() > deadline:
            process.kill()
        time.sleep(0.02)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    code = process.wait(TIMEOUT_S)
    if code == 0 or not any(checkpoints.glob("step-*/manifest.json")):
        errors = (side.root / f"{name}.err").read_text()[-3000:]
        raise CommandFailed(f"{side.name}: {name} was not interrupted: exit code {code}\n{errors}")


def read_exports(side: Side, of: Path, inputs: Path) -> None:
    """Predict with, evaluate and export the students of the runs in ``of``."""
    folder = side.root / "exports"
    folder.mkdir(parents=True)
    students = {"c": "classification/student", "l": "language/student"}
    for name, student in students.items():
        shutil.copytree(of / student, side.root / name)
    data = {"c": str(inputs / "reviews.parquet"), "l": str(inputs / "texts.parquet")}
    columns = ("--domain-column", "domain", "--split-column", "split")
    side.run("exports-c", "distill", "predict", "c", "--data", data["c"], "--out", "exports/c.csv")
    side.run(
        *("exports-l", "distill", "predict", "l", "--data", data["l"], "--out", "exports/l.csv"),
        *("--max-new-tokens", "4"),
    )
    side.run(
        *("exports", "distill", "evaluate", "c", "--data", data["c"], *columns),
        *("--teacher", str(inputs / "one"), "--out", "exports/evaluation", "--json"),
    )
    side.run("exports-hf", "distill", "export", "c", "--out", "exports/hf")


class Runs:
    """Every run of both sides; two commands at a time."""

    def __init__(self, base: Side, head: Side, work: Path, kept: Kept) -> None:
        self.base, self.head, self.inputs, self.kept = base, head, work / "inputs", kept
        self.stopped = base.at(work / "stopped")
        self.resumed, self.cached = head.at(work / "resumed"), head.at(work / "cached")

    def of(self, names: Sequence[str]) -> list[Comparison]:
        """``names`` of CONFIGS, and "across": HEAD with what BASE has left."""
        across = "across" in names
        configs = [n for n in CONFIGS if n in names or (across and n in ACROSS)]
        with ThreadPoolExecutor(2) as pool:
            needed = {name: pool.submit(self._of_base, name) for name in configs}
            work = [lambda n=name: train(self.head, n, self.inputs) for name in configs]
            if across:
                work.insert(0, self._resume)
                work.append(lambda: self._read_cache(needed))
                work += [lambda s=s: self._read_exports(s, needed) for s in (self.base, self.head)]
            wait_for([*needed.values(), *(pool.submit(one) for one in work)])
        found = [self._same(name) for name in configs]
        return found + (self._across() if across else [])

    def _of_base(self, name: str) -> None:
        with self.kept.once(name) as is_needed:
            if is_needed:
                train(self.base, name, self.inputs)

    def _same(self, name: str) -> Comparison:
        results = self.base.results(name), self.head.results(name)
        return compared(name, *results, IGNORED.get(name))

    def _resume(self) -> None:
        with self.kept.once("stopped") as is_needed:
            if is_needed:
                stop_after_checkpoint(self.stopped, "language", self.inputs)
        shutil.copytree(self.stopped.root, self.resumed.root)
        config = self.resumed.root / "language.yaml"
        moved = config.read_text().replace(str(self.stopped.root), str(self.resumed.root))
        config.write_text(moved)
        self.resumed.run("language", "distill", "train", "language.yaml", "--json")

    def _read_cache(self, needed: dict[str, Future[None]]) -> None:
        needed["language"].result()
        write_config(self.cached, "language", self.inputs)
        shutil.copytree(self.base.root / ANSWERS, self.cached.root / ANSWERS)
        self.cached.run("language", "distill", "train", "language.yaml", "--json")

    def _read_exports(self, side: Side, needed: dict[str, Future[None]]) -> None:
        for name in ACROSS:
            needed[name].result()
        with self.kept.once("exports" if side is self.base else "") as is_needed:
            if is_needed:
                read_exports(side, self.base.root, self.inputs)

    def _across(self) -> list[Comparison]:
        whole = self.base.results("language")
        resumed = compared("resumed", whole, self.resumed.results("language"), TRAFFIC)
        resumed.note = f"BASE was stopped after step {last_step(self.stopped.root / 'language')}"
        of_cached = self.cached.results("language")
        cached = compared("cache of BASE", whole, of_cached, TRAFFIC)
        added = new_files(self.base.root / ANSWERS, self.cached.root / ANSWERS)
        rows = computed_rows(of_cached)
        cached.note = f"{rows:.0f} rows computed again by teachers, {len(added)} new cache files"
        if rows or added:
            cached.found.append(Difference("cache", "teacher forwards", "no", cached.note))
        return [resumed, cached, self._same("exports")]


def wait_for(futures: Sequence[Future[None]]) -> None:
    """Raises the first error, and starts nothing more."""
    try:
        for future in futures:
            future.result()
    except BaseException:
        for future in futures:
            future.cancel()
        raise


def last_step(run: Path) -> int:
    return max(int(p.name.removeprefix("step-")) for p in run.glob("fit/checkpoints/step-*"))


def new_files(base: Path, head: Path) -> list[str]:
    names = [{str(p.relative_to(root)) for p in root.rglob("*.arrow")} for root in (base, head)]
    return sorted(names[1] - names[0])


def computed_rows(results: Results) -> float:
    """Rows that any teacher computed, by the MLflow store."""
    return sum(
        float(text.removeprefix("sum "))
        for name, text in results.metrics.items()
        if name.startswith("mlflow ") and re.search(r"#teacher\..*\.rows$", name)
    )


def quickstart(base: Side, head: Side, kept: Kept) -> list[Comparison]:
    """The quickstart as README.md has it, one side after the other."""
    for side in (base, head):
        with kept.once("quickstart" if side is base else "") as is_needed:
            if is_needed:
                run_quickstart(side)
    names = ("data", "quickstart")
    return [compared(name, base.results(name), head.results(name)) for name in names]


def run_quickstart(side: Side) -> None:
    side.run("sentiment", "distill.samples.sentiment", "--out", "data/sentiment")
    store = f"tracking.uri=sqlite:///{side.root}/quickstart.db"
    config = str(side.tree / "configs/quickstart.yaml")
    own = ("output=quickstart", store, "tracking.system_metrics=false")
    side.run("quickstart", "distill", "train", config, *own, "--json")


# ---- results of BASE that are kept -------------------------------------------------------------


class Kept:
    """Which runs of BASE are in the folder ``work`` already, by ``base.json`` in it.

    They are used again if revision, Python, packages and the inputs are the same; otherwise the
    folder is emptied. Raises SystemExit for a folder of something else.
    """

    def __init__(self, work: Path, revision: str) -> None:
        self._file = work / "base.json"
        self._lock = threading.Lock()
        self._of = {
            "revision": revision,
            "python": sys.version,
            "packages": {name: version(name) for name in ("torch", "transformers", "ray")},
            "inputs": hashlib.sha256(INPUTS.read_bytes()).hexdigest(),
        }
        work.mkdir(parents=True, exist_ok=True)
        self.names: list[str] = []
        if self._file.exists():
            found = json.loads(self._file.read_text())
            # A checkout with uncommitted changes ("+") has no name of its own.
            if found["of"] == self._of and not revision.endswith("+"):
                self.names = found["names"]
        elif any(work.iterdir()):
            sys.exit(f"--work {work} has other files: name a new folder")
        kept = ("inputs", "base", "stopped") if self.names else ()
        for name in {"inputs", "base", "head", "stopped", "resumed", "cached"} - set(kept):
            shutil.rmtree(work / name, ignore_errors=True)
        self._write()

    @contextmanager
    def once(self, name: str) -> Iterator[bool]:
        """Whether the block is to run; noted as done if it raises nothing. "": always."""
        if name in self.names:
            yield False
            return
        yield True
        if name:
            with self._lock:
                self.names.append(name)
                self._write()

    def _write(self) -> None:
        self._file.write_text(json.dumps({"of": self._of, "names": self.names}, indent=1))


# ---- revisions ---------------------------------------------------------------------------------


@contextmanager
def checkout(revision: str, folder: Path) -> Iterator[tuple[Path, str]]:
    """A detached worktree of a revision, or the folder itself; and what the report calls it."""
    if Path(revision).is_dir():
        tree = Path(revision).resolve()
        changed = git("status", "--porcelain", "--untracked-files=no", at=tree)
        yield tree, git("rev-parse", "--short=12", "HEAD", at=tree) + ("+" if changed else "")
        return
    commit = git("rev-parse", "--verify", "--short=12", f"{revision}^{{commit}}", at=REPOSITORY)
    git("worktree", "add", "--detach", str(folder), commit, at=REPOSITORY)
    try:
        yield folder, commit
    finally:
        git("worktree", "remove", "--force", str(folder), at=REPOSITORY)


def git(*arguments: str, at: Path) -> str:
    command = ["git", "-C", str(at), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()


def check_tree(side: Side) -> None:
    """An installed distill must not hide that of the tree."""
    code = "import distill; print(distill.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(side.tree)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=environment, cwd=side.root, capture_output=True, text=True, check=True
    )
    if not done.stdout.startswith(str(side.tree)):
        sys.exit(f"{side.name}: distill is imported from {done.stdout.strip()}, not {side.tree}")


# ---- output ------------------------------------------------------------------------------------


HEADER = ("run", "tensors", "metric values", "records", "files", "different")


def cells(c: Comparison) -> tuple[str, ...]:
    counts = (len(c.base.tensors), c.base.num_values, len(c.base.records), len(c.base.files))
    return (c.name, *(f"{count:,}" for count in counts), f"{len(c.found):,}")


def print_table(comparisons: Sequence[Comparison]) -> None:
    print("{:<16}{:>9}{:>15}{:>10}{:>8}{:>12}".format(*HEADER))
    print("─" * 70)
    for comparison in comparisons:
        print("{:<16}{:>9}{:>15}{:>10}{:>8}{:>12}".format(*cells(comparison)))
    print()
    for c in comparisons:
        if c.note:
            print(f"{c.name}: {c.note}")


def print_differences(comparisons: Sequence[Comparison], limit: int) -> None:
    """What, and both values from where they begin to differ; ``limit`` for each run and kind."""
    for comparison in comparisons:
        for kind, group in groupby(comparison.found, lambda difference: difference.kind):
            found = list(group)
            for difference in found[:limit]:
                print(f"{comparison.name}: {kind}: {difference.name}")
                base, head = excerpts(difference.base, difference.head, WIDTH - 8)
                print(f"  base  {base}\n  head  {head}")
            if len(found) > limit:
                print(f"{comparison.name}: {kind}: {len(found) - limit:,} more")


def excerpts(base: str, head: str, width: int) -> tuple[str, str]:
    """From shortly before the first character that differs."""
    start = next(
        (i for i, (a, b) in enumerate(zip(base, head, strict=False)) if a != b),
        min(len(base), len(head)),
    )
    start = 0 if start < width // 2 else start - width // 4
    return base[start : start + width], head[start : start + width]


def markdown(comparisons: Sequence[Comparison], revisions: Sequence[str], seconds: float) -> str:
    lines = [
        "# Golden runs: two revisions compared",
        "",
        f"BASE `{revisions[0]}`, HEAD `{revisions[1]}`. {date.today().isoformat()}, "
        f"{os.cpu_count()} CPU cores ({platform.machine()}), torch {torch.__version__}, "
        f"{seconds:.0f} s. Times, rates of time, memory and dates are compared by name alone.",
        "",
        "| " + " | ".join(HEADER) + " |",
        "|---|" + "---:|" * (len(HEADER) - 1),
        *("| " + " | ".join(cells(c)) + " |" for c in comparisons),
        "",
        *(f"- {c.name}: {c.note}" for c in comparisons if c.note),
    ]
    for comparison in comparisons:
        lines += [f"- {comparison.name}: {d.kind}: `{d.name}`" for d in comparison.found[:20]]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", help="git revision, or the folder of a checkout")
    parser.add_argument("head", help="git revision, or the folder of a checkout")
    parser.add_argument(
        "--only", nargs="+", choices=[*CONFIGS, "across"], default=[*CONFIGS, "across"]
    )
    parser.add_argument("--quickstart", action="store_true", help="also the whole quickstart")
    parser.add_argument("--write", action="store_true", help=f"write {OUT.relative_to(REPOSITORY)}")
    parser.add_argument(
        "--work",
        type=Path,
        help="folder for the runs; it is kept, and those of the same BASE are used again",
    )
    parser.add_argument(
        "--limit", type=int, default=8, help="differences to print for a run and kind"
    )
    args = parser.parse_args()
    started = time.monotonic()
    with ExitStack() as stack:
        if args.work is None:
            args.work = Path(stack.enter_context(TemporaryDirectory(prefix="golden-"))) / "work"
        work = args.work.resolve()
        trees = [
            stack.enter_context(checkout(revision, Path(f"{work}-{name}")))
            for name, revision in zip(SIDES, (args.base, args.head), strict=True)
        ]
        revisions = [revision for _, revision in trees]
        kept = Kept(work, revisions[0])
        base, head = (Side(name, trees[i][0], work / name) for i, name in enumerate(SIDES))
        for side in (base, head):
            side.root.mkdir(exist_ok=True)
            check_tree(side)
        try:
            if not (work / "inputs").exists():
                write_inputs(work / "inputs")
            comparisons = Runs(base, head, work, kept).of(args.only)
            comparisons += quickstart(base, head, kept) if args.quickstart else []
        except CommandFailed as error:
            print(error)
            sys.exit(2)
    seconds = time.monotonic() - started
    print(f"BASE {revisions[0]}, HEAD {revisions[1]}, {seconds:.0f} s\n")
    print_table(comparisons)
    print_differences(comparisons, args.limit)
    if args.write:
        OUT.write_text(markdown(comparisons, revisions, seconds))
    num_different = sum(len(c.found) for c in comparisons)
    print("no difference" if num_different == 0 else f"{num_different:,} differences")
    sys.exit(0 if num_different == 0 else 1)


if __name__ == "__main__":
    main()
