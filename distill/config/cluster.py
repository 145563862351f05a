"""The section ``cluster``: where Ray runs."""

from __future__ import annotations

from pydantic import Field, field_validator

from distill.variant import Section


class Cluster(Section):
    """Where Ray runs."""

    address: str | None = None
    """A running Ray cluster that this machine is part of: ``auto`` or ``host:port``; null starts a
    local one. ``--address`` sets it."""
    num_cpus: float | None = Field(default=None, gt=0)
    """CPUs of a local cluster, rounded down; null: all of the machine."""
    max_tasks: int | None = Field(default=None, ge=1)
    """Experts, router and baselines that are trained at once; 1: one after the other, and none
    while the student is trained; null: as many as there are resources for."""
    start_deadline_s: float = Field(default=900.0, gt=0)
    """Seconds to wait until all teachers have started; a cluster may have to start machines for
    them."""

    @field_validator("address")
    @classmethod
    def _no_url(cls, address: str | None) -> str | None:
        if address is not None and "://" in address:
            raise ValueError(
                f"cluster.address must be auto or host:port, got {address!r}: distill does not "
                "run through Ray Client; from outside a cluster, submit it as a job: ray job "
                "submit --address http://127.0.0.1:8265 -- distill train … --address auto"
            )
        return address
