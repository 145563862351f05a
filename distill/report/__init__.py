"""What a person sees: progress bars, the comparison table, and plots."""

from distill.report.progress import Progress, Tail
from distill.report.table import Row, render, to_csv, to_json, to_markdown

__all__ = ["Progress", "Row", "Tail", "render", "to_csv", "to_json", "to_markdown"]
