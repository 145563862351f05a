"""Logging to MLflow, by the driver alone."""

from distill.config.values import flatten, masked
from distill.tracking.store import check_reachable, open_command, resolve_uri, silence_of
from distill.tracking.tracker import KEPT, Tracker, not_reachable, silence_lines

__all__ = [
    "KEPT",
    "Tracker",
    "check_reachable",
    "flatten",
    "masked",
    "not_reachable",
    "open_command",
    "resolve_uri",
    "silence_lines",
    "silence_of",
]
