"""How long a user waits for a refusal: each command line in a fresh process, the median of five.

python benchmarks/refusal_time.py --out benchmarks/results/refusal_time.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

LIMIT_S = 2.0
RUNS = 5
FILES = {
    "tab.yaml": "data:\n\tpath: rows.csv\n",
    "unknown-key.yaml": "data: {path: rows.csv}\nkd: {temprature: 2}\n",
    "out-of-range.yaml": "data: {path: rows.csv}\nkd: {alpha: 2}\n",
    "no-data.yaml": "data: {path: absent.csv}\n",
    "no-teacher.yaml": "data: {path: rows.csv}\nteachers: [{name: a, path: absent/model}]\n",
    "rows.csv": "text,label\n",
}
CASES = {
    "--help": ["--help"],
    "--version": ["--version"],
    "no such file": ["check", "absent.yaml"],
    "not YAML": ["check", "tab.yaml"],
    "unknown key": ["check", "unknown-key.yaml"],
    "value out of range": ["check", "out-of-range.yaml"],
    "bad override": ["check", "no-data.yaml", "teachers.a.path=x"],
    "no data file": ["check", "no-data.yaml"],
    "no teacher folder": ["check", "no-teacher.yaml"],
    "train: value out of range": ["train", "out-of-range.yaml"],
    "sweep: value out of range": ["sweep", "out-of-range.yaml"],
}


class Timed(NamedTuple):
    seconds: float
    cpu_s: float
    """Of the processor, user and system: what a machine without other work would take."""
    exit_code: int


def timed(arguments: list[str], folder: Path) -> Timed:
    """One process, from its start to its end."""
    started, before = time.perf_counter(), os.times()
    done = subprocess.run(
        [sys.executable, "-m", "distill", *arguments], cwd=folder, capture_output=True, check=False
    )
    took, after = time.perf_counter() - started, os.times()
    cpu_s = after.children_user - before.children_user
    cpu_s += after.children_system - before.children_system
    return Timed(took, cpu_s, done.returncode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    medians, cpu, codes = {}, {}, {}
    with tempfile.TemporaryDirectory() as name:
        for file, content in FILES.items():
            (Path(name) / file).write_text(content)
        for case, arguments in CASES.items():
            timed(arguments, Path(name))  # reads the files of the modules into memory
            runs = [timed(arguments, Path(name)) for _ in range(RUNS)]
            medians[case] = round(statistics.median(run.seconds for run in runs), 3)
            cpu[case] = round(statistics.median(run.cpu_s for run in runs), 3)
            codes[case] = runs[0].exit_code
            print(f"{medians[case]:6.2f} s ({cpu[case]:.2f} s of CPU)  exit {codes[case]}  {case}")
    slowest = max(medians.values())
    result = {
        "runs": RUNS,
        "limit_s": LIMIT_S,
        "slowest_s": slowest,
        "median_s": medians,
        "median_cpu_s": cpu,
        "load": round(os.getloadavg()[0], 1),
        "exit_codes": codes,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
    }
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(0 if slowest <= LIMIT_S else f"the slowest took {slowest:.2f} s, above {LIMIT_S:g} s")


if __name__ == "__main__":
    main()
