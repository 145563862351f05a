"""Run every committed rule mutation: ``python -m tests.mutants [AREA | AREA/RULE] …``.

This process imports the heavy packages once, but never distill. For each patch it forks a child
that works in a copy of the sources with the patch applied, imports distill from there and runs the
tests that the patch names. They must fail. Before that the same tests must pass without a patch.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mutants.patches import Patch, PatchError, apply, patches_of

SOURCES = ("distill", "tests")
"""Folders that each child has its own copy of, and imports from there alone."""
NEVER_PRELOADED = ("distill", "tests", "ray", "deepspeed", "mlflow", "grpc", "__main__")
"""Top-level packages that only a child may import: our own, and those that start threads."""
PYTEST_OPTIONS = (
    *("-x", "-q", "--tb=short", "--no-header", "--disable-warnings", "-p", "no:cacheprovider"),
    *("-p", "no:xdist", "-o", "addopts=--strict-markers"),
)
ROOT = Path(__file__).resolve().parents[2]
BASELINE_LIMIT_S = 600.0
KILLED, SURVIVED, TIMEOUT, BROKEN = "killed", "SURVIVED", "timeout", "ERROR"


@dataclass
class Child:
    """A forked process that runs tests in ``folder``."""

    pid: int
    folder: Path
    started: float
    patch: Patch | None

    @property
    def output(self) -> str:
        return (self.folder / "output.txt").read_text(errors="replace")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("wanted", nargs="*", help="areas, or area/rule; without one all")
    parser.add_argument("--root", type=Path, default=ROOT, help="of the sources and patches")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds a patch")
    options = parser.parse_args()
    start = time.monotonic()
    try:
        patches = patches_of(options.root / "tests" / "mutants", tuple(options.wanted))
    except PatchError as error:
        print(error)
        return 1
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        work = Path(folder).resolve()
        base = work / "base"
        copy_sources(options.root, base)
        tests = tuple(dict.fromkeys(test for patch in patches for test in patch.tests))
        baseline = fork(base, tests, None)
        status = wait(baseline, BASELINE_LIMIT_S)
        if status != 0:
            print(
                f"{baseline.output}\nwithout a patch these tests must pass (exit status {status})"
            )
            return 1
        print(f"unmutated: {len(tests)} test files or tests pass, {elapsed(baseline):.0f} s")
        preload(json.loads((base / "modules.json").read_text()))
        print(row("area", "rule", "result", "seconds"), flush=True)
        results = run_all(patches, base, work, options)
    counts = {result: results.count(result) for result in dict.fromkeys(results)}
    shown = ", ".join(f"{number} {result}" for result, number in counts.items())
    print(f"{len(results)} rule mutations: {shown}; {time.monotonic() - start:.0f} s")
    return 0 if set(results) <= {KILLED, TIMEOUT} else 1


def run_all(
    patches: Sequence[Patch], base: Path, work: Path, options: argparse.Namespace
) -> list[str]:
    """The result of each patch; ``options.processes`` of them run at a time."""
    results: list[str] = []
    waiting, running = list(patches), list[Child]()
    try:
        while waiting or running:
            while waiting and len(running) < options.processes:
                patch = waiting.pop(0)
                copy = work / patch.area / patch.name
                copy_sources(base, copy, os.link)  # git replaces a file, it never writes into one
                try:
                    apply(patch, copy)
                except PatchError as error:
                    results.append(finish(patch, BROKEN, 0.0, str(error)))
                    continue
                running.append(fork(copy, patch.tests, patch))
            for child in list(running):
                status = poll(child, options.limit)
                if status is None:
                    continue
                running.remove(child)
                assert child.patch is not None
                results.append(finish(child.patch, result_of(status), elapsed(child), child.output))
                shutil.rmtree(child.folder)
            time.sleep(0.02)
    finally:
        for child in running:
            end(child)
    return results


def result_of(status: int) -> str:
    """Of pytest's exit status; negative: the signal. Only a test that failed has killed a mutant:
    not an import that failed, a test that does not exist, or a crash."""
    if status == -signal.SIGKILL:
        return TIMEOUT
    return {0: SURVIVED, 1: KILLED}.get(status, BROKEN)


def finish(patch: Patch, result: str, seconds: float, output: str) -> str:
    """Print the row of a patch; for one that was not killed also its rule and the last output."""
    print(row(patch.area, patch.name, result, f"{seconds:.1f}"), flush=True)
    if result in (SURVIVED, BROKEN):
        print(f"    {patch.rule}")
        print("".join(f"    {line}\n" for line in output.strip().splitlines()[-12:]), end="")
    return result


def row(area: str, rule: str, result: str, seconds: str) -> str:
    """At most 80 columns for a name of at most 48."""
    return f"{area:<12} {rule:<48} {result:<9} {seconds:>7}"


def copy_sources(root: Path, copy: Path, copy_file=shutil.copy2) -> None:
    """With modification times, so that bytecode which is already there stays valid."""
    for name in SOURCES:
        ignored = shutil.ignore_patterns("__pycache__") if copy_file is not os.link else None
        shutil.copytree(root / name, copy / name, copy_function=copy_file, ignore=ignored)
    copy_file(root / "pyproject.toml", copy / "pyproject.toml")


def preload(names: Sequence[str]) -> None:
    """Import what the tests imported, so that a child need not."""
    for name in names:
        if name.partition(".")[0] in NEVER_PRELOADED:
            continue
        try:
            importlib.import_module(name)
        except Exception:
            continue  # a module that only its package can import; a child imports it


def fork(folder: Path, tests: Sequence[str], patch: Patch | None) -> Child:
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 3
        try:
            status = run_tests(folder, tests)
        finally:
            os._exit(status)
    return Child(pid, folder, time.monotonic(), patch)


def run_tests(folder: Path, tests: Sequence[str]) -> int:
    """In the child: pytest's exit status for ``tests`` of the copy in ``folder``."""
    os.setsid()  # so that its processes end with it
    with (folder / "output.txt").open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    for name in [name for name in sys.modules if name.partition(".")[0] in SOURCES]:
        del sys.modules[name]
    sys.path[:] = [str(folder), *(path for path in sys.path if Path(path).resolve() != ROOT)]
    os.environ["PYTHONPATH"] = str(folder)
    importlib.invalidate_caches()
    status = int(pytest.main([*PYTEST_OPTIONS, *tests]))
    modules = dict(sys.modules)
    for name, module in modules.items():
        file = getattr(module, "__file__", None)
        if name.partition(".")[0] in SOURCES and file and not Path(file).is_relative_to(folder):
            print(f"{name} was imported from {file}, not from the copy")
            return 3
    (folder / "modules.json").write_text(json.dumps(list(modules)))
    sys.stdout.flush()
    return status


def poll(child: Child, limit_s: float) -> int | None:
    """The exit status, negative for a signal; None while it runs. At the limit it is killed."""
    pid, status = os.waitpid(child.pid, os.WNOHANG)
    if pid:
        return os.waitstatus_to_exitcode(status)
    if elapsed(child) > limit_s:
        return end(child)
    return None


def wait(child: Child, limit_s: float) -> int:
    while (status := poll(child, limit_s)) is None:
        time.sleep(0.02)
    return status


def end(child: Child) -> int:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:  # it has not made its group yet
        os.kill(child.pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])


def elapsed(child: Child) -> float:
    return time.monotonic() - child.started


if __name__ == "__main__":
    sys.exit(main())
