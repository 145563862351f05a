"""``distill train``, ``sweep``, ``experts``: the commands that start Ray and train."""

from __future__ import annotations

from pathlib import Path

from distill.cli.options import Address, AsJson, Config, Overrides
from distill.cli.output import (
    command_line,
    errors,
    load_experiment,
    near,
    print_json,
    say,
    say_mlflow,
    show,
)


def train(
    config: Config, overrides: Overrides = None, address: Address = None, as_json: AsJson = False
) -> None:
    """Train experts (if configured) and the student, and evaluate it. Resumes a run."""
    with errors(as_json, command_line("train", config, overrides, address)):
        experiment = load_experiment(config, overrides, address)

        from distill.driver import pipeline
        from distill.report.progress import Progress
        from distill.report.table import fidelity_table, render

        with Progress() as progress:
            outcome = pipeline.train(experiment, progress)
        show(render(outcome.rows, title=str(experiment.tracking.experiment)))
        if "fidelity.any" in outcome.metrics:
            say("")
            show(fidelity_table(outcome.metrics))
        say("")
        say(f"student   {near(outcome.student)}")
        say(f"report    {near(outcome.report)}")
        say_mlflow(outcome.open_command)
        if as_json:
            print_json(
                outcome.metrics | {"student": str(outcome.student), "report": str(outcome.report)}
            )


def sweep(
    config: Config, overrides: Overrides = None, address: Address = None, as_json: AsJson = False
) -> None:
    """Search over temperature, alpha, size, … with the same teachers. Resumes a sweep."""
    with errors(as_json, command_line("sweep", config, overrides, address)):
        experiment = load_experiment(config, overrides, address, "-sweep")

        from distill.driver.sweep.run import sweep as run_sweep
        from distill.report.progress import Progress

        with Progress() as progress:
            outcome = run_sweep(experiment, progress)
        show(outcome.table())
        say("")
        if outcome.champion is not None:
            say(f"champion  {near(Path(outcome.champion.student))}")
        say(f"report    {near(outcome.report)}")
        say_mlflow(outcome.open_command)
        if as_json:
            print_json(outcome.as_json())


def experts(
    config: Config, overrides: Overrides = None, address: Address = None, as_json: AsJson = False
) -> None:
    """Train only the experts and the router, as Hugging Face folders (or adapters)."""
    with errors(as_json, command_line("experts", config, overrides, address)):
        from distill.errors import ConfigError

        experiment = load_experiment(config, overrides, address)
        if experiment.experts is None:
            raise ConfigError(f"{config} has no section experts: there is nothing to train")

        from distill.driver import pipeline
        from distill.report.progress import Progress, format_metrics
        from distill.report.terminal import grid
        from distill.training.fitted import best_evaluation_in

        with Progress() as progress:
            folders = pipeline.train_experts(experiment, progress)
        rows = [
            [name, format_metrics(best_evaluation_in(folder.parent)), str(near(folder))]
            for name, folder in folders.items()
        ]
        title = f"{experiment.tracking.experiment}: experts"
        show(grid(["expert", "best evaluation", "folder"], rows, title, wrap=(1, 2)))
        if as_json:
            print_json({name: str(folder) for name, folder in folders.items()})
