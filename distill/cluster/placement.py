"""Node labels of the configuration, compared with the nodes of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.config import Experiment, Serving
from distill.errors import ConfigError

UNPACKED = "working_dir_files"
"""Ray unpacks the working folder of a submitted job below a folder of this name."""


@dataclass(frozen=True)
class Requirement:
    """What one process needs on a single node."""

    key: str
    """The configuration's key that names the labels."""
    labels: Mapping[str, str]
    num_cpus: float
    num_gpus: float


@dataclass(frozen=True)
class Node:
    labels: Mapping[str, str]
    resources: Mapping[str, float]
    """All of it, free or not."""


def requirements(experiment: Experiment) -> list[Requirement]:
    """Every part that has node labels."""
    trainer, experts = experiment.trainer, experiment.experts
    cpus, gpus = trainer.num_cpus_per_worker, trainer.num_gpus_per_worker
    found = [Requirement("trainer.node_labels", trainer.node_labels, cpus, gpus)]
    served: dict[str, Serving] = {f"teachers.{i}": t for i, t in enumerate(experiment.teachers)}
    if experts is not None:
        found.append(
            Requirement(
                "experts.node_labels", experts.node_labels, experts.num_cpus, experts.num_gpus
            )
        )
        served["experts.serving"] = experts.serving
        if experts.router is not None and experiment.aggregation.needs_router():
            served["experts.router.serving"] = experts.router.serving
    for key, serving in served.items():
        labels = serving.node_labels
        found.append(Requirement(f"{key}.node_labels", labels, serving.cpus, serving.num_gpus))
    return [requirement for requirement in found if requirement.labels]


def admits(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Ray's rule: ``a``, ``!a``, ``in(a,b)`` or ``!in(a,b)``; an absent label equals nothing."""
    for key, rule in selector.items():
        values = rule.removeprefix("!")
        if values.startswith("in(") and values.endswith(")"):
            among = {value.strip() for value in values[3:-1].split(",")}
        else:
            among = {values}
        if (labels.get(key) in among) == rule.startswith("!"):
            return False
    return True


def unmet(requested: Sequence[Requirement], nodes: Sequence[Node]) -> list[str]:
    """One line for each need that no node meets, even when it is idle."""
    messages = []
    for requirement in requested:
        labelled = [node for node in nodes if admits(requirement.labels, node.labels)]
        if any(_is_large_enough(node, requirement) for node in labelled):
            continue
        size = f"{requirement.num_cpus:g} CPUs and {requirement.num_gpus:g} GPUs"
        lack = f"of the {len(labelled)} nodes with them none has {size}" if labelled else ""
        named = [{k: v for k, v in n.labels.items() if not k.startswith("ray.io/")} for n in nodes]
        lack = lack or f"no node has them (node labels: {named})"
        messages.append(f"{requirement.key} needs a node with {dict(requirement.labels)}: {lack}")
    return messages


def _is_large_enough(node: Node, requirement: Requirement) -> bool:
    requested = {"CPU": requirement.num_cpus, "GPU": requirement.num_gpus}
    return all(node.resources.get(kind, 0.0) + 1e-6 >= amount for kind, amount in requested.items())


def check_labels(experiment: Experiment, say: Callable[[str], None], only: str = "") -> None:
    """Report labels that no node of the running Ray has; ``only``: of keys with this beginning.

    A joined cluster may grow: there it is a message. Raises ConfigError on a local one.
    """
    required = [
        requirement for requirement in requirements(experiment) if requirement.key.startswith(only)
    ]
    if not required:
        return
    import ray

    nodes = [Node(node["Labels"], node["Resources"]) for node in ray.nodes() if node["Alive"]]
    for text in unmet(required, nodes):
        if experiment.cluster.address is None:
            raise ConfigError(
                f"{text}; remove the key, or name a cluster with such nodes in cluster.address"
            )
        say(f"{text}; waiting for such a node to join (`ray start --labels`, or the autoscaler)")


def check_persistent_paths(experiment: Experiment, folder: Path | None = None) -> None:
    """Raise ConfigError if the run folder, or what runs share, would lie in a submitted job's own
    working folder.

    Ray unpacks that on one node, and deletes it after the job. ``folder``: the working folder.
    """
    here = (folder or Path.cwd()).absolute()
    kept = {
        "output": experiment.output,
        "cache.path": experiment.cache.path,
        "memory.path": experiment.memory.path,
    }
    for key, path in kept.items():
        if path is not None and UNPACKED in (here / path).parts:
            raise ConfigError(
                f"{key} {path!r} is in the folder that Ray unpacked for this job and deletes after "
                "it: give an absolute path on storage that all nodes share"
            )
