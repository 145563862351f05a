"""MLflow, seen from the driver: the only process that talks to it."""

from distill.tracking.store import check_reachable, open_command, resolve_uri
from distill.tracking.tracker import Tracker
from distill.tracking.values import flatten, masked

__all__ = ["Tracker", "check_reachable", "flatten", "masked", "open_command", "resolve_uri"]
