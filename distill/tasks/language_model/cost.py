"""How a step's time is divided between student and teachers, by floating-point operations alone.

A forward of P parameters takes 2 · P operations a token, and training 6 · P; generating counts each
token of a row once. Every replica and every rank counts as a device of the same constant speed, and
all experts of a mixture count: generating one token at a time takes longer than this estimate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from distill.config import Experiment, Student
from distill.data.blocks import Blocks
from distill.models.decoder import layers_of
from distill.models.language import check_language_folder
from distill.models.language_sizes import solve_language
from distill.models.language_student import kept_layers
from distill.models.plain_head import described
from distill.models.tokenizer import load_tokenizer, num_ids
from distill.records import Line, RoutingInputs
from distill.sampling import Generated, Mixed, Speculative, StudentText, TeacherText
from distill.tasks.checks.placement import placed
from distill.tasks.language_model.folders import Languages
from distill.teachers.served import groups


@dataclass(frozen=True)
class Costs:
    """Times of one step, all in one unit."""

    trains: float  # the student
    student_generation: float  # the student, generating text
    teacher_generation: Mapping[str, float]  # each teacher, verifying or generating text
    answers: Mapping[str, float]  # each teacher, answering requests
    requests_ahead: bool  # whether teachers answer while the student trains
    together: Sequence[Sequence[str]] = ()  # teachers on one device: adapters that share a base

    @property
    def generation(self) -> float:
        return self.student_generation + self._longest(self.teacher_generation)

    @property
    def step(self) -> float:
        answers = self._longest(self.answers)
        if self.requests_ahead:
            return max(
                self.generation + self.trains, self._longest(self.teacher_generation) + answers
            )
        return self.generation + answers + self.trains

    def idle(self, teacher: str) -> float:
        """The fraction of a step that the teacher's device waits."""
        busy = self._of_device(self.teacher_generation, teacher) + self._of_device(
            self.answers, teacher
        )
        return 1 - busy / self.step

    def _longest(self, costs: Mapping[str, float]) -> float:
        return max(self._of_device(costs, name) for name in costs)

    def _of_device(self, costs: Mapping[str, float], teacher: str) -> float:
        group = next((group for group in self.together if teacher in group), [teacher])
        return sum(costs[name] for name in group)


def cost_lines(
    experiment: Experiment, languages: Languages, names: tuple[str, ...], blocks: Blocks
) -> list[Line]:
    """Lines of the plan for a language model with teachers."""
    if not names:
        return []
    costs = costs_of(experiment, languages, names, blocks)
    waits = ", ".join(f"{name} {costs.idle(name):.0%}" for name in names)
    by = "in the first epoch, if all devices are equally fast"
    lines = [Line("teacher idle (estimate)", waits, by)]
    if isinstance(experiment.sampling, Generated):
        share = f"{costs.generation / costs.step:.0%} of a step"
        lines.append(Line("generation share (estimate)", share, by))
    return lines


def costs_of(
    experiment: Experiment, languages: Languages, names: tuple[str, ...], blocks: Blocks
) -> Costs:
    """For texts as long as the data set's, truncated to ``sampling.max_new_tokens``."""
    sampling, trainer = experiment.sampling, experiment.trainer
    rows = blocks.rows("train")
    tokens = trainer.batch_size * _tokens(experiment, blocks)
    trains = 6 * student_params(experiment.student, languages.tokenizer) * tokens
    trains /= trainer.num_workers
    domain_teacher_B = torch.from_numpy(blocks.domain_teachers_of(rows, names))
    queried_KB = experiment.aggregation.choose(RoutingInputs(names, domain_teacher_B))
    shares = dict(zip(names, queried_KB.float().mean(1).tolist(), strict=True))
    params = {name: info.num_params for name, info in languages.teachers.items()}
    serving = {t.name: t for t in experiment.teachers}
    if experiment.experts is not None and languages.base is not None:
        params = dict.fromkeys(names, languages.base.num_params)
        serving = dict.fromkeys(names, experiment.experts.serving)
    forwards = {n: 2 * params[n] * tokens / serving[n].replicas for n in names}
    answers = {n: forwards[n] * shares[n] * serving[n].moe.num_passes for n in names}
    teacher_generation, student_generation = dict.fromkeys(names, 0.0), 0.0
    if isinstance(sampling, Speculative | TeacherText):
        if sampling.teacher is None:  # the only one, or each for the rows of its domain
            teacher_generation = {name: forwards[name] * shares[name] for name in names}
        else:
            teacher_generation[sampling.teacher] = forwards[sampling.teacher]
    if isinstance(sampling, StudentText):
        student_generation = (
            trains / 3 * (sampling.student_share if isinstance(sampling, Mixed) else 1)
        )
    if experiment.kd.alpha == 0:
        answers = dict.fromkeys(names, 0.0)
    requests_ahead = not isinstance(sampling, Generated)
    if isinstance(sampling, StudentText):
        requests_ahead = sampling.staleness > 0
    together = [[t.name for t in group] for group in groups(placed(experiment))]
    if experiment.experts is not None and experiment.experts.lora is not None:
        together = [list(names)]
    return Costs(trains, student_generation, teacher_generation, answers, requests_ahead, together)


def _tokens(experiment: Experiment, blocks: Blocks) -> float:
    """Mean tokens of a training row."""
    rows, sampling = blocks.rows("train"), experiment.sampling
    lengths_B = blocks.lengths(rows)
    if isinstance(sampling, Generated) and sampling.max_new_tokens is not None:
        lengths_B -= np.maximum(0, blocks.num_targets(rows) - sampling.max_new_tokens)
    return float(lengths_B.mean())


def student_params(student: Student, tokenizer: str) -> int:
    """Parameters of the student, without the low-rank updates of ``lora``."""
    if student.path is not None:
        return check_language_folder(student.path).num_params
    start = student.init_from
    if start is None:
        own = student.tokenizer or tokenizer
        return solve_language(student, num_ids(load_tokenizer(own))).num_params
    _, layers = layers_of(described(start.path))
    kept = kept_layers(start.layers, len(layers), start.keep)
    dropped = [layer for i, layer in enumerate(layers) if i not in kept]
    num_dropped = sum(p.numel() for layer in dropped for p in layer.parameters())
    return check_language_folder(start.path).num_params - num_dropped
