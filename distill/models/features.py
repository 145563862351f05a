"""Small classifiers of numbers: a multi-layer perceptron, and a convolutional net for images.

Importing this module registers them with transformers, so that AutoModelForSequenceClassification
loads their folders. They take *raw* features: the standardisation is a part of the model.

Shape suffixes: B rows, D features, H hidden, V classes; N images, C channels, Y and X their sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel
from transformers import initialization as init
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_outputs import SequenceClassifierOutput


@dataclass(frozen=True)
class FeatureSpace:
    """What a model of features must know of the data."""

    columns: tuple[str, ...]
    """One column of lists, or one for each feature."""
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    """Models see (x − mean) / scale."""
    image: tuple[int, int, int] | None = None
    """Height, width and channels; None where the features are no image."""

    @property
    def num(self) -> int:
        return len(self.mean)


def feature_space(
    columns: Sequence[str],
    mean: Sequence[float],
    sd: Sequence[float],
    image: tuple[int, int, int] | None = None,
) -> FeatureSpace:
    """Each feature by its own moments; of an image, all pixels of a channel by common ones.

    (A pixel at the edge is almost constant: its own sd would blow a stray stroke up.) A feature
    that never varies in the train split is only shifted.
    """
    mean_D, sd_D = torch.tensor(mean, dtype=torch.float64), torch.tensor(sd, dtype=torch.float64)
    if image is not None:
        channels = image[2]
        mean_PC, square_PC = mean_D.view(-1, channels), (sd_D**2 + mean_D**2).view(-1, channels)
        mean_C = mean_PC.mean(0)
        sd_C = (square_PC.mean(0) - mean_C**2).clamp(min=0).sqrt()
        mean_D, sd_D = mean_C.expand_as(mean_PC).flatten(), sd_C.expand_as(mean_PC).flatten()
    scale_D = torch.where(sd_D > 1e-12 * (1 + mean_D.abs()), sd_D, torch.ones_like(sd_D))
    return FeatureSpace(tuple(columns), tuple(mean_D.tolist()), tuple(scale_D.tolist()), image)


class FeatureConfig(PreTrainedConfig):
    """Of a :class:`FeatureClassifier`; ``image`` is height, width and channels."""

    model_type = "distill_features"

    family: str = "mlp"
    num_features: int = 1
    columns: list[str] | tuple[str, ...] = ()
    image: list[int] | tuple[int, ...] | None = None
    num_hidden_layers: int = 2
    hidden_size: int = 32
    dropout: float | int = 0.0


class FeatureClassifier(PreTrainedModel):
    """``family`` mlp: L × (linear, ReLU, dropout), then a linear head.

    ``family`` cnn: L × (3×3 convolution, ReLU, 2×2 max-pooling while a side is at least 4), the
    mean over the pixels, dropout, then a linear head. Hidden states are [B, 1, H] each, like one
    token's; of a cnn, the means over its pixels.
    """

    config_class = FeatureConfig
    base_model_prefix = ""
    main_input_name = "features"
    feature_mean: Tensor
    feature_scale: Tensor
    # In bfloat16 a mean of 1000 is off by 4.
    _keep_in_fp32_modules_strict = ["feature_mean", "feature_scale"]  # noqa: RUF012

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__(config)
        num_inputs = config.num_features
        if config.family == "cnn":
            assert config.image is not None
            num_inputs = config.image[2]
        widths = [num_inputs] + [config.hidden_size] * config.num_hidden_layers
        self.layers = nn.ModuleList(
            nn.Conv2d(i, o, 3, padding=1) if config.family == "cnn" else nn.Linear(i, o)
            for i, o in pairwise(widths)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_size, len(config.id2label or ()))
        # Buffers: they are not trained, and travel with the weights.
        self.register_buffer("feature_mean", torch.zeros(config.num_features))
        self.register_buffer("feature_scale", torch.ones(config.num_features))
        self.post_init()

    def forward(
        self,
        features: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """``features``: [B, D], raw, of any floating type."""
        mean_D, scale_D = self.feature_mean.float(), self.feature_scale.float()
        scaled_BD = (features.float() - mean_D) / scale_D  # float32: raw values can be large
        forward = self._convolved if self.config.family == "cnn" else self._perceived
        states_LBH = forward(scaled_BD.to(self.classifier.weight.dtype))
        logits_BV = self.classifier(states_LBH[-1])
        return SequenceClassifierOutput(
            loss=None if labels is None else cross_entropy(logits_BV.float(), labels),
            logits=logits_BV,
            hidden_states=tuple(s[:, None] for s in states_LBH) if output_hidden_states else None,
        )

    def _perceived(self, state_BH: Tensor) -> list[Tensor]:
        states_LBH = []
        for layer in self.layers:
            state_BH = self.dropout(torch.relu(layer(state_BH)))
            states_LBH.append(state_BH)
        return states_LBH

    def _convolved(self, scaled_BD: Tensor) -> list[Tensor]:
        height, width, channels = self.config.image
        state_NCYX = scaled_BD.view(-1, height, width, channels).permute(0, 3, 1, 2)
        states_LBH = []
        for layer in self.layers:
            state_NCYX = torch.relu(layer(state_NCYX))
            if min(state_NCYX.shape[2:]) >= 4:
                state_NCYX = torch.max_pool2d(state_NCYX, 2)
            states_LBH.append(state_NCYX.mean((2, 3)))
        states_LBH[-1] = self.dropout(states_LBH[-1])
        return states_LBH

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """He et al. 2015 for layers under a ReLU; the head starts near the uniform answer."""
        if isinstance(module, nn.Linear | nn.Conv2d):
            if module is self.classifier:
                init.normal_(module.weight, std=0.02)
            else:
                init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                init.zeros_(module.bias)


AutoConfig.register(FeatureConfig.model_type, FeatureConfig)
AutoModelForSequenceClassification.register(FeatureConfig, FeatureClassifier)


def build_classifier(
    family: str,
    space: FeatureSpace,
    label_names: Sequence[str],
    *,
    layers: int,
    hidden: int,
    dropout: float,
) -> FeatureClassifier:
    """Fresh weights from torch's random state, and the space's standardisation."""
    config = FeatureConfig(
        family=family,
        num_features=space.num,
        columns=list(space.columns),
        image=None if space.image is None else list(space.image),
        num_hidden_layers=layers,
        hidden_size=hidden,
        dropout=dropout,
        id2label=dict(enumerate(label_names)),
        label2id={name: index for index, name in enumerate(label_names)},
    )
    model = FeatureClassifier(config)
    model.feature_mean.copy_(torch.tensor(space.mean))
    model.feature_scale.copy_(torch.tensor(space.scale))
    return model.eval()


def parameter_shapes(
    family: str, *, layers: int, hidden: int, num_inputs: int, num_labels: int
) -> dict[str, tuple[int, ...]]:
    """Every parameter of a FeatureClassifier. ``num_inputs``: features, or an image's channels."""
    kernel = (3, 3) if family == "cnn" else ()
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        shapes[f"layers.{layer}.weight"] = (hidden, hidden if layer else num_inputs, *kernel)
        shapes[f"layers.{layer}.bias"] = (hidden,)
    shapes["classifier.weight"] = (num_labels, hidden)
    shapes["classifier.bias"] = (num_labels,)
    return shapes


def buffer_shapes(num_features: int) -> dict[str, tuple[int, ...]]:
    """What the file holds apart from the parameters."""
    return {"feature_mean": (num_features,), "feature_scale": (num_features,)}


def count(shapes: dict[str, tuple[int, ...]]) -> int:
    return sum(prod(shape) for shape in shapes.values())
