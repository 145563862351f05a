"""The network of the attention. Apart from attention.py, whose import must not import torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TeacherScores(nn.Module):
    """score_m = v · dropout(ReLU(W · norm(x) + b + t_m)), float [N, H] → [N, K].

    This is a two-layer MLP of [norm(x); t_m]: with the first layer's part for the embedding
    included in t_m, that layer is computed once for all teachers. norm: mean 0 and variance 1, so
    that one learning rate suits all students. v starts at 0, which is the uniform mean. There is
    no bias after v: it would be the same for all teachers.
    """

    def __init__(self, num_teachers: int, num_features: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(num_features, elementwise_affine=False)
        self.features = nn.Linear(num_features, hidden)
        # Of this module itself: ZeRO 3 gathers a module's own parameters for its forward.
        self.teachers = nn.Parameter(torch.randn(num_teachers, hidden))
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(self.score.weight)

    def forward(self, features_NH: Tensor) -> Tensor:
        hidden_NX = self.features(self.norm(features_NH))
        hidden_NKX = torch.relu(hidden_NX[:, None] + self.teachers)
        return self.score(self.dropout(hidden_NKX))[..., 0]
