"""A torch module of features as a classifier with ``predict_proba``.

Shape suffixes: B rows, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


class ModuleClassifier:
    """softmax(module(features)): the module takes float32 [B, D] and gives logits [B, C].

    An output with an attribute ``logits`` (transformers') is read by it. The module computes in
    evaluation mode, where its weights are.
    """

    def __init__(self, module: torch.nn.Module, classes: Sequence[Any]) -> None:
        self.module = module.eval()
        self.classes_ = list(classes)

    @torch.inference_mode()
    def predict_proba(self, rows_BD: np.ndarray) -> np.ndarray:
        """float64 [B, C], in the order of ``classes_``."""
        weight = next(self.module.parameters(), None)
        device = torch.device("cpu") if weight is None else weight.device
        output: Any = self.module(torch.as_tensor(rows_BD, dtype=torch.float32, device=device))
        logits_BC = getattr(output, "logits", output)
        return logits_BC.double().softmax(-1).cpu().numpy()
