"""The text that a language model is trained on: the data set, or generated text."""

from distill.config.sampling import (
    DatasetSampling,
    Decoding,
    Generated,
    Mixed,
    OnPolicy,
    Sampling,
    Speculative,
    StudentText,
    TeacherText,
)

__all__ = [
    "DatasetSampling",
    "Decoding",
    "Generated",
    "Mixed",
    "OnPolicy",
    "Sampling",
    "Speculative",
    "StudentText",
    "TeacherText",
]
