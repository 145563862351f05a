"""Where the text comes from that the student learns on."""

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
