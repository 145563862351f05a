"""The text that a language model is trained on: the data set, or generated text."""

from distill.config.sampling import (
    DatasetSampling,
    Decoding,
    Mixed,
    OnPolicy,
    Sampling,
    Speculative,
    StudentText,
    TeacherText,
    Written,
)

__all__ = [
    "DatasetSampling",
    "Decoding",
    "Mixed",
    "OnPolicy",
    "Sampling",
    "Speculative",
    "StudentText",
    "TeacherText",
    "Written",
]
