"""``distill check``, ``preview`` and ``schema``: what starts no process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from distill.cli.options import Address, AsJson, Config, Overrides
from distill.cli.output import errors, load_experiment, print_json, say, show


def check(
    config: Config, overrides: Overrides = None, address: Address = None, as_json: AsJson = False
) -> None:
    """Validate configuration, data and models, and print the plan. Starts nothing."""
    with errors(as_json):
        experiment = load_experiment(config, overrides, address)

        from distill.cluster.connect import check_address
        from distill.driver.checks.check import about
        from distill.driver.checks.check import check as check_experiment
        from distill.driver.checks.estimate import estimate
        from distill.driver.stages import stages_of, tree
        from distill.records import Line
        from distill.report.terminal import grid
        from distill.tracking import silence_lines

        silence = silence_lines(experiment.tracking)
        check_address(experiment.cluster)
        plan = check_experiment(experiment)
        expected = estimate(plan)
        lines = [*plan.lines, *expected.lines, *silence]
        if experiment.search is not None:
            swept = load_experiment(config, overrides, address, "-sweep")
            where, why = str(Path(swept.output).absolute()), ""
            if experiment.chain is not None:
                where, why = "none", "distill sweep has no chain: remove it for a sweep"
            lines.append(Line("output of a sweep", where, why))
        cells = [[line.part, line.what, line.size] for line in lines]
        heads, text = ["part", "plan", "size"], (0, 1, 2)
        show(grid(heads, cells, f"{config}: ready to train", wrap=text))
        stages = stages_of(plan)
        for line in tree(stages):
            say(line)
        if as_json:
            found = {
                "ok": True,
                "plan": [{"part": x.part, "plan": x.what, "size": x.size} for x in lines],
                "output": str(Path(plan.experiment.output).absolute()),
                "stages": [
                    {"stage": one.name, "needs": one.needs, "teachers": one.teachers}
                    for one in stages
                ],
            }
            resumes = {"is_resuming": plan.is_resuming}
            print_json(found | resumes | {"estimate": expected.as_json()} | about(plan.corpus))


def preview(
    config: Config,
    overrides: Overrides = None,
    split: Annotated[str, typer.Option(help="train, transfer, validation or test.")] = "train",
    rows: Annotated[int, typer.Option(help="Number of rows to show.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print only a JSON list.")] = False,
) -> None:
    """Show rows as the student reads them, and mark the tokens that are trained on."""
    with errors(as_json):
        from distill.config import load

        experiment = load(config, overrides)  # a preview needs no teacher's folder

        from distill.driver.preview import preview as preview_rows
        from distill.driver.preview import render
        from distill.report.terminal import console

        found = preview_rows(experiment, split, rows)
        if as_json:
            print_json([one.as_json() for one in found.shown])
        else:
            render(found, console())


def schema() -> None:
    """Print the JSON schema of the configuration, for editors."""
    from distill.config import Experiment

    print(json.dumps(Experiment.model_json_schema(), indent=2))
