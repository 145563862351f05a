"""The configuration of an experiment: one frozen class for each section, documented under its
fields. Importing it imports neither torch nor Ray."""

from distill.config.baselines import Baseline, LabelsOnly, TfidfBaseline
from distill.config.chain import Chain
from distill.config.cluster import Cluster
from distill.config.data import (
    RENDERING,
    SPLITS,
    Columns,
    Cut,
    Data,
    Holdout,
    ImageShape,
    Limit,
    SplitNames,
)
from distill.config.experiment import Experiment, load, parse
from distill.config.labels import Label
from distill.config.stream import Cache, Stream, Transport
from distill.config.student import SCALES, InitFrom, Lora, Student
from distill.config.teachers import (
    ByColumn,
    CPUs,
    Experts,
    KMeans,
    Partition,
    Router,
    Serving,
    Teacher,
)
from distill.config.tracking import Tracking
from distill.config.training import KD, Device, Generation, Optimizer, Trainer
from distill.variant import Name

__all__ = [
    "KD",
    "RENDERING",
    "SCALES",
    "SPLITS",
    "Baseline",
    "ByColumn",
    "CPUs",
    "Cache",
    "Chain",
    "Cluster",
    "Columns",
    "Cut",
    "Data",
    "Device",
    "Experiment",
    "Experts",
    "Generation",
    "Holdout",
    "ImageShape",
    "InitFrom",
    "KMeans",
    "Label",
    "LabelsOnly",
    "Limit",
    "Lora",
    "Name",
    "Optimizer",
    "Partition",
    "Router",
    "Serving",
    "SplitNames",
    "Stream",
    "Student",
    "Teacher",
    "TfidfBaseline",
    "Tracking",
    "Trainer",
    "Transport",
    "load",
    "parse",
]
