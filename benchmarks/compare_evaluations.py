"""Several evaluations compared: which of students of equal accuracy should be used?

    python benchmarks/compare_evaluations.py "no KD=reports/a" "MoEKD=reports/b" --out FILE.md

Reads each folder's evaluation.json. All must be of the same data and settings.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROWS = {
    "accuracy": "test.accuracy",
    "macro F1": "test.f1",
    "ECE": "test.ece",
    "violates agreement": "fidelity.agreement",
    "violates distribution": "fidelity.distribution",
    "violates confidence": "fidelity.confidence",
    "violates calibration": "fidelity.calibration",
    "**violates any**": "fidelity.any",
    "violates any, transformed": "fidelity.transformed.any",
    "predictions that change when transformed": "robustness.transformed.flips",
    "accuracy lost when transformed": "robustness.transformed.drop",
    "attack success": "robustness.asr",
    "accuracy under attack": "robustness.accuracy",
    "relative drop against the teacher": "fidelity.relative_drop",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("evaluations", nargs="+", help="NAME=FOLDER")
    parser.add_argument("--title", default="Evaluations side by side")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    pairs = [one.split("=", 1) for one in args.evaluations]
    found = {
        name: json.loads(Path(folder, "evaluation.json").read_text()) for name, folder in pairs
    }
    first = next(iter(found.values()))
    for name, one in found.items():
        for key in ("data", "settings", "teachers"):
            if one[key] != first[key]:
                sys.exit(f"{name} was evaluated with other {key} than the first: evaluate it again")
    head = ["", *found, "teacher"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for title, metric in ROWS.items():
        cells = [shown(one["metrics"].get(metric), metric) for one in found.values()]
        teacher = [one["metrics"].get(f"teacher.{metric}") for one in found.values()]
        lines.append([title, *cells, shown(teacher[0], metric) if teacher[0] is not None else ""])
    attack, rows = first["settings"]["attack"], first["metrics"]["test.rows"]
    about = (
        f"{rows:.0f} rows; {first['settings']['transform']['num_samples']} of them transformed; "
        + (
            f"{attack['num_samples']} attacked ({', '.join(attack['methods'])}, "
            f"{attack['budget']} queries)."
            if attack["methods"]
            else "not attacked."
        )
    )
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    text = f"# {args.title}\n\n{about}\n\n{table}\n"
    args.out.write_text(text)
    print(text)


def shown(value: float | None, metric: str) -> str:
    if value is None:
        return "–"
    return f"{value * 100:+.0f} %" if metric.endswith("relative_drop") else f"{value * 100:.1f} %"


if __name__ == "__main__":
    main()
