"""``distill check``, ``preview`` and ``schema``: what starts no process."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from distill.cli.options import Address, AsJson, Config, Overrides
from distill.cli.output import errors, load_experiment, print_json, show


def check(
    config: Config, overrides: Overrides = None, address: Address = None, as_json: AsJson = False
) -> None:
    """Validate everything that can be known before a process starts, and print the plan."""
    with errors(as_json):
        from distill.check import about
        from distill.check import check as check_experiment
        from distill.cluster import check_address
        from distill.report.terminal import grid
        from distill.tracking import check_reachable

        experiment = load_experiment(config, overrides, address)
        check_reachable(experiment.tracking)
        check_address(experiment.cluster)
        plan = check_experiment(experiment)
        cells = [[line.part, line.what, line.size] for line in plan.lines]
        heads, text = ["part", "plan", "size"], (0, 1, 2)
        show(grid(heads, cells, f"{config}: ready to train", left=text, wrap=text))
        if as_json:
            lines = [{"part": x.part, "plan": x.what, "size": x.size} for x in plan.lines]
            print_json({"ok": True, "plan": lines, **about(plan.corpus)})


def preview(
    config: Config,
    overrides: Overrides = None,
    split: Annotated[str, typer.Option(help="train, transfer, validation or test.")] = "train",
    rows: Annotated[int, typer.Option(help="How many, from the first.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list alone.")] = False,
) -> None:
    """Show rows as the student reads them: tokens, those trained on marked, label, domain."""
    with errors(as_json):
        from distill.preview import preview as preview_rows
        from distill.preview import render
        from distill.report.terminal import console

        found = preview_rows(load_experiment(config, overrides), split, rows)
        if as_json:
            print_json([one.as_json() for one in found.shown])
        else:
            render(found, console())


def schema() -> None:
    """Print the configuration's JSON schema, for editors."""
    from distill.config import Experiment

    print(json.dumps(Experiment.model_json_schema(), indent=2))
