"""The sections ``stream`` and ``cache``: requests between a student and its teachers, and where the
teachers' outputs are kept."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from distill.variant import Section

Transport = Literal["object_store", "nixl"]


class Stream(Section):
    """Requests between the teachers and one rank of the student."""

    in_flight: int = Field(default=4, ge=1)
    """Number of steps for which outputs are requested ahead of the student (W)."""
    deadline_s: float = Field(default=120.0, gt=0)
    """Seconds without progress of a replica after which its requests are sent to another one: it
    does not respond to a status request, or finishes no forward while a request waits at it. Time
    in the queue of a replica that makes progress does not count. Must be longer than one forward,
    and than encoding and sending its outputs."""
    retries: int = Field(default=3, ge=0)
    """How often a request is sent again after its replica was lost or made no progress."""
    recovery_s: float = Field(default=1800.0, gt=0)
    """Seconds that a run waits for a teacher of which no replica is up (a lost node, a slow
    restart). The student writes a checkpoint and continues once the teacher responds; after
    ``recovery_s`` the run stops and can be resumed. A teacher that stops responding without a
    report from Ray is noticed after ``deadline_s``: a shorter ``recovery_s`` stops the run then."""
    transport: Transport = "object_store"
    """How outputs are sent. ``object_store``: Ray's shared memory. ``nixl``: Ray Direct Transport,
    from the memory of the teacher (GPU memory if it has a GPU) to the host memory of the rank;
    needs the package nixl."""


class Cache(Section):
    """Where teachers' outputs are cached."""

    type: Literal["arrow", "memory", "none"] = "arrow"
    """``arrow``: on disk, for later epochs, runs and sweeps. ``memory``: until the run ends.
    ``none``: outputs are always computed again. The output layer of a teacher with the wire
    ``hidden`` is kept in a file in every case, which all ranks of a node map into their memory."""
    path: str | None = None
    """Folder of the Arrow cache; null: ``<output>/cache``, or the shared memory if ``memory.path``
    is set. Runs with the same folder share the outputs."""
