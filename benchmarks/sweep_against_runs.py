"""A sweep of N trials against N separate `distill train` runs on the same expert folders.

    python benchmarks/sweep_against_runs.py configs/quickstart-sweep.yaml --separate 4

First the experts are trained (not timed). Then, timed as a user runs them, one after the other:
one `distill sweep` over the grid of the configuration, and one `distill train` for each of its
combinations, each with a cache of its own. Writes the wall times and their ratio. With --separate N
only N of them are run, evenly spread, and the total is their mean times the number of trials: the
result then states it. Timings are kept in the work folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

from distill import __version__
from distill.config import load
from distill.config.search_space import combinations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("--work", type=Path, default=Path("runs/sweep-against-runs"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/sweep_against_runs"))
    parser.add_argument("--separate", type=int, help="separate runs to time; default: all")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_intermixed_args()
    shared = [*args.overrides, f"tracking.uri=sqlite:///{args.work.absolute()}/mlflow.db"]
    args.work.mkdir(parents=True, exist_ok=True)
    timings = Timings(args.work / "timings.json")
    experts = args.work / "experts"
    command("experts", args.config, [*shared, f"output={experts}"])
    ready = [*shared, *folders_of(experts)]
    search = load(args.config, args.overrides).search
    assert search is not None and search.uses_grid, "the configuration needs a grid"
    sweep_s, text = timings.of("sweep", args.config, [*ready, f"output={args.work / 'sweep'}"])
    runs: list[float] = []
    every = list(enumerate(combinations(search.space)))
    for index, values in every[:: len(every) // (args.separate or len(every))]:
        output = args.work / f"run-{index:02d}"
        changes = [f"{key}={value}" for key, value in values.items()]
        runs.append(timings.of("train", args.config, [*ready, *changes, f"output={output}"])[0])
    write(args.out, args.config, args.overrides, len(every), sweep_s, runs, text)


class Timings:
    """What was timed already, so that an interrupted benchmark continues; delete it to restart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = json.loads(path.read_text()) if path.exists() else {}

    def of(self, name: str, config: str, overrides: list[str]) -> tuple[float, dict]:
        output = overrides[-1].removeprefix("output=")
        if output not in self._known:
            shutil.rmtree(output, ignore_errors=True)
            self._known[output] = command(name, config, overrides)
            self._path.write_text(json.dumps(self._known, indent=1))
        seconds, text = self._known[output]
        print(f"{output}: {seconds:.0f} s", flush=True)
        return seconds, text


def command(name: str, config: str, overrides: list[str]) -> tuple[float, dict]:
    """Wall seconds of a distill command, process start to end, and its last line."""
    line = [sys.executable, "-m", "distill.cli", name, config, *overrides, "--json"]
    started = time.perf_counter()
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - started, json.loads(done.stdout.splitlines()[-1])


def folders_of(experts: Path) -> list[str]:
    """Overrides that name trained experts as existing teachers."""
    names = sorted(p.name for p in (experts / "experts").iterdir() if (p / "model").is_dir())
    names.remove("router")
    teachers = [
        {"name": n, "path": str(experts / "experts" / n / "model"), "num_cpus": 0.2} for n in names
    ]
    router = experts / "experts/router/model"
    return ["experts=null", f"teachers={json.dumps(teachers)}", f"aggregation.router={router}"]


def write(
    out: Path,
    config: str,
    overrides: list[str],
    trials: int,
    sweep_s: float,
    runs: list[float],
    text: dict,
) -> None:
    result = {
        "config": " ".join([config, *overrides]),
        "date": date.today().isoformat(),
        "distill": __version__,
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "trials": trials,
        "separate_runs_timed": len(runs),
        "teacher_passes": text["teacher.passes"],
        "sweep_s": round(sweep_s, 1),
        "separate_s": [round(seconds, 1) for seconds in runs],
        "separate_total_s": round(statistics.mean(runs) * trials, 1),
        "separate_median_s": round(statistics.median(runs), 1),
        "ratio": round(sweep_s / (statistics.mean(runs) * trials), 3),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
