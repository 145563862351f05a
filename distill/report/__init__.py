"""Output for people: progress bars, comparison tables, plots, pages."""

from distill.evaluation.rows import Row
from distill.report.progress import Progress
from distill.report.table import render, to_csv, to_json, to_markdown
from distill.training.log import Tail

__all__ = ["Progress", "Row", "Tail", "render", "to_csv", "to_json", "to_markdown"]
