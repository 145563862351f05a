"""Trained weights of teachers in a folder of the report, to be read back without the run.

<report>/aggregation/aggregation.json       teachers, settings, width of the input
<report>/aggregation/weights.safetensors    the network's parameters
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, TypeAdapter
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from distill.aggregation import Attention, LearnedRouter, TrainedWeights
from distill.errors import ModelError

SETTINGS, PARAMETERS = "aggregation.json", "weights.safetensors"
Saved = Annotated[Attention | LearnedRouter, Field(discriminator="type")]


@dataclass(frozen=True)
class SavedWeights:
    """A network that gives each of ``teachers`` a weight; see :func:`read_weights`."""

    aggregation: TrainedWeights
    teachers: tuple[str, ...]
    network: nn.Module

    @torch.inference_mode()
    def weights(self, hidden_NH: Tensor) -> Tensor:
        """float32 [K, N], columns sum to 1, in the order of ``teachers``.

        ``hidden_NH``: what the network was trained on. Of a classifier, each row's mean of the
        student's last hidden states (:func:`distill.training.class_module.pooled`); of a
        language model, the last hidden states at the positions, and with ``per: sample`` their
        mean over a sequence.
        """
        return self.network(hidden_NH.float()).log_softmax(dim=1).exp().T


def save_weights(
    folder: Path,
    aggregation: TrainedWeights,
    teachers: Sequence[str],
    network: nn.Module,
) -> None:
    """What :func:`read_weights` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (norm,) = (part for part in network.modules() if isinstance(part, nn.LayerNorm))
    about = {
        "version": aggregation.version,
        "teachers": list(teachers),
        "num_features": norm.normalized_shape[0],
        "aggregation": aggregation.model_dump(mode="json"),
    }
    (folder / SETTINGS).write_text(json.dumps(about, indent=1, ensure_ascii=False), "utf-8")
    state = {name: tensor.float().contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, folder / PARAMETERS)


def read_weights(folder: str | Path) -> SavedWeights:
    """The trained weights that a run left in ``<output>/report/aggregation``, in evaluation mode.

    Raises ModelError for a folder without them, or of another version.
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / SETTINGS).read_text("utf-8"))
        aggregation = TypeAdapter(Saved).validate_python(about["aggregation"])
        if about["version"] != aggregation.version:
            raise ModelError(
                f"{folder} holds version {about['version']} of aggregation.type "
                f"{aggregation.type}, this is version {aggregation.version}: read it with the "
                "version of distill that wrote it"
            )
        teachers = tuple(about["teachers"])
        network = aggregation.build(len(teachers), 0, about["num_features"])
        network.load_state_dict(load_file(folder / PARAMETERS))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(
            f"{folder} holds no trained weights of teachers ({error}): give the folder "
            "report/aggregation of a run with aggregation.type attention or learned"
        ) from None
    return SavedWeights(aggregation, teachers, network.eval())
