"""``distill train``, ``sweep``, ``experts``: what starts Ray and trains."""

from __future__ import annotations

from pathlib import Path

from distill.cli.options import Address, AsJson, Config, Overrides
from distill.cli.output import errors, load_experiment, near, print_json, say, say_mlflow, show


def train(
    config: Config, overrides: Overrides = None, address: Address = None, as_json: AsJson = False
) -> None:
    """Train experts, serve them, distil the student, evaluate, record. Resumes what exists."""
    with errors(as_json):
        from distill import pipeline
        from distill.evaluation.relations import RATES
        from distill.report.progress import Progress
        from distill.report.table import render

        experiment = load_experiment(config, overrides, address)
        with Progress() as progress:
            outcome = pipeline.train(experiment, progress)
        show(render(outcome.rows, title=str(experiment.tracking.experiment)))
        if "fidelity.any" in outcome.metrics:
            rates = {name: f"{outcome.metrics[f'fidelity.{name}']:.1%}" for name in RATES}
            told = ", ".join(f"{name} {rate}" for name, rate in rates.items())
            say(f"fidelity  test rows that violate a relation to the teachers: {told}")
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
    """Search temperature, alpha, size, … with one set of teachers; the frontier. Resumes."""
    with errors(as_json):
        from distill.report.progress import Progress
        from distill.search.sweep import sweep as run_sweep

        experiment = load_experiment(config, overrides, address, "-sweep")
        with Progress() as progress:
            outcome = run_sweep(experiment, progress)
        show(outcome.table())
        if outcome.champion is not None:
            say(f"champion  {near(Path(outcome.champion.student))}")
        say(f"report    {near(outcome.report)}")
        say_mlflow(outcome.open_command)
        if as_json:
            print_json(outcome.as_json())


def experts(
    config: Config, overrides: Overrides = None, address: Address = None, as_json: AsJson = False
) -> None:
    """Train the experts and the router alone, as ordinary Hugging Face folders (or adapters)."""
    with errors(as_json):
        from distill import pipeline
        from distill.errors import ConfigError
        from distill.report.progress import Progress

        experiment = load_experiment(config, overrides, address)
        if experiment.experts is None:
            raise ConfigError(f"{config} has no section experts: there is nothing to train")
        with Progress() as progress:
            folders = pipeline.train_experts(experiment, progress)
        for name, folder in folders.items():
            say(f"{name:<20} {near(folder)}")
        if as_json:
            print_json({name: str(folder) for name, folder in folders.items()})
