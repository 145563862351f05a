"""The rows of the comparison: every model on the test split once, with what it generates."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from distill.config import Generation
from distill.data.blocks import Blocks
from distill.evaluation.efficiency import Efficiency
from distill.evaluation.generation import GenerationScores, score_answers, write_answers
from distill.evaluation.rows import Role, Row, in_domains, measured
from distill.evaluation.teacher_answers import score_teacher
from distill.metrics import LATENCY, SIZE
from distill.models.adapter import read_adapter
from distill.models.language import check_language_folder
from distill.models.language_student import merged
from distill.models.load import load_tokenizer
from distill.tasks.base import IsStopped
from distill.tasks.comparison import Comparison, Say
from distill.tasks.language_model.scores import (
    Compared,
    ExactTeachers,
    Scores,
    compare,
    cost_of,
    score,
)
from distill.tasks.plan import Plan
from distill.teachers.served import ServedTeacher, groups
from distill.teachers.setup import TeacherSetup
from distill.training.fit import build_module, load_best
from distill.training.fitted import best_evaluation
from distill.training.job import Data, Job
from distill.training.token_module import TokenModule
from distill.training.trainable import Trainable


class LanguageModels(Comparison):
    """On perplexity and generated text, with agreement with the aggregated teachers."""

    def __init__(
        self,
        plan: Plan,
        data: Data,
        teacher_setup: TeacherSetup | None,
        is_stopped: IsStopped,
        distilled: Trainable | None = None,
    ) -> None:
        """``distilled``: the model whose trained weights, if it has any, the teachers have for all
        students; None: each one's own."""
        assert isinstance(plan.rows, Blocks)
        assert distilled is None or isinstance(distilled, TokenModule)
        self._plan = plan
        self._data = data
        self._blocks = plan.rows
        self._teacher_setup = teacher_setup
        self._stop = is_stopped
        self._distilled = distilled
        self._compared: Compared | None = None
        """Of the teachers and the student of the run."""

    @property
    def can_compare(self) -> bool:
        """Whether there are teachers, and their tokens are the student's."""
        crosses = self._plan.experiment.objective.crosses_tokenizers
        return self._teacher_setup is not None and not crosses

    def compared(
        self, data: Data, module: TokenModule | None = None, split: str = "test"
    ) -> Compared:
        """Teachers and, if given, a student; a second time the outputs come from the cache."""
        assert self._teacher_setup is not None
        teachers = ExactTeachers.of(self._teacher_setup)
        with teachers.open(data) as stream:
            return compare(
                module,
                self._blocks,
                teachers,
                stream,
                self._teacher_setup.aggregation,
                self._stop,
                self._plan.experiment.trainer.loss_chunk_mb,
                self._distilled,
                split,
            )

    def teachers(self) -> list[Row]:
        # What wires of trials leave out is in the cache from here on, for the test of their
        # students.
        return self._teacher_rows(self.compared(self._data)) if self.can_compare else []

    def measure(self, student: Job, module: Trainable, say: Say) -> list[Row]:
        assert isinstance(module, TokenModule)
        self._student, self._module = student, module
        rows = []
        if self.can_compare:
            say("evaluating teachers and student on the test split")
            self._compared = self.compared(self._data, module)
            self.weights = self._compared.routing
            rows += self._teacher_rows(self._compared)
        elif self._teacher_setup is not None:
            say("teachers are left out of the table: perplexities of other tokens do not compare")
        say("evaluating the untrained student and the baselines on the test split")
        rows.append(self._untrained_row(student))
        return rows

    def baselines(self, jobs: Sequence[Job]) -> list[Row]:
        return [self._student_row(job, "baseline") for job in jobs]

    def link(self, job: Job) -> Row:
        return self._student_row(job, "link")

    def student(self, say: Say) -> tuple[Row, Efficiency]:
        say("generating answers to test prompts, and measuring the student on one CPU thread")
        return self._row_and_cost(self._student, "student", self._module, self._compared)

    def related(self, rows: list[Row]) -> list[Row]:
        return compressed(rows)

    def metrics(self, row: Row, cost: Efficiency) -> dict[str, float]:
        metrics = best_evaluation(self._student) | dict(row.metrics)
        metrics["student.gflops"] = cost.gflops
        if self.weights is not None:
            metrics |= self.weights.metrics()
        if (kd := self._student.kd) is not None:
            metrics |= {"kd.temperature": kd.temperature, "kd.alpha": kd.alpha}
        return metrics

    def tested(self, job: Job, module: Trainable) -> dict[str, float]:
        assert isinstance(module, TokenModule)
        return dict(self._quality_row(job, "student", module).metrics)

    def _teacher_rows(self, compared: Compared) -> list[Row]:
        assert self._teacher_setup is not None
        rows = []
        together = 0
        for spec in self._teacher_setup.teachers:
            row = self._row(spec.name, "expert", compared.teachers[spec.name])
            num_params = sum(_sizes(spec))
            row = row.having(_size(num_params))
            answered = self._answered(spec)
            if answered is not None:
                row = row.having(_generated(answered))
            rows.append(row)
        for group in groups(self._teacher_setup.teachers):
            bases, updates = zip(*map(_sizes, group), strict=True)
            together += bases[0] + sum(updates)
        if len(rows) > 1 and compared.aggregate.by_domain:
            mix = self._row(
                f"{self._teacher_setup.aggregation.type} ensemble", "mix", compared.aggregate
            )
            rows.append(mix.having(_size(together)))
        return rows

    def _untrained_row(self, job: Job) -> Row:
        """The student before training, for comparison."""
        module = build_module(job).eval()
        assert isinstance(module, TokenModule)
        row = self._row("student, untrained", "baseline", score(module, self._blocks, self._stop))
        num_params = sum(p.numel() for p in merged(module.student).parameters())
        return row.having({"student.params": num_params})

    def _student_row(self, job: Job, role: Role) -> Row:
        return self._row_and_cost(job, role, load_best(job))[0]

    def _quality_row(
        self, job: Job, role: Role, module: TokenModule, compared: Compared | None = None
    ) -> Row:
        """How well a trained student predicts and generates, without its latency and memory."""
        if compared is None and self.can_compare:
            compared = self.compared(job.data, module)
        scores = compared.student if compared else score(module, self._blocks, self._stop)
        row = self._row(job.name, role, scores)
        generated = self._generated_text(module.student, job, self._plan.experiment.generation)
        if generated is None:
            return row
        return row.having(_generated(generated))

    def _row_and_cost(
        self, job: Job, role: Role, module: TokenModule, compared: Compared | None = None
    ) -> tuple[Row, Efficiency]:
        row = self._quality_row(job, role, module, compared)
        cost = cost_of(module.student, self._blocks.max_length)
        costs = {
            "student.params": cost.params,
            SIZE: cost.size_mb,
            LATENCY: cost.latency_ms,
            "student.peak_memory_mb": cost.peak_memory_mb,
            "student.tokens_per_s": cost.tokens_per_s,
        }
        return row.having(costs), cost

    def _generated_text(
        self, model: PreTrainedModel, job: Job, generation: Generation
    ) -> GenerationScores | None:
        if self._blocks.kind == "text" or generation.num_prompts == 0:
            return None
        prompts = self._blocks.prompts_of("test", generation.num_prompts)
        answers = write_answers(
            merged(model),
            load_tokenizer(job.data.tokenizer),
            [prompt.ids for prompt in prompts],
            generation.max_new_tokens,
            should_stop=self._stop,
            turn_ends=self._blocks.turn_ends,
        )
        return score_answers(answers, [prompt.reference for prompt in prompts])

    def _answered(self, teacher: ServedTeacher) -> GenerationScores | None:
        """What a served teacher generates for the prompts that the student is given."""
        generation = self._plan.experiment.generation
        if self._blocks.kind == "text" or generation.num_prompts == 0:
            return None
        assert self._teacher_setup is not None
        return score_teacher(
            self._teacher_setup.client,
            teacher,
            self._blocks.prompts_of("test", generation.num_prompts),
            load_tokenizer(self._blocks.tokenizer_folder),
            generation.max_new_tokens,
            self._blocks.turn_ends,
            teacher.serving.allow_pickle,
            self._stop,
        )

    def _row(self, name: str, role: Role, scores: Scores) -> Row:
        total = scores.total
        metrics = {
            "test.accuracy": total.accuracy,
            "test.perplexity": total.perplexity,
            "fidelity.token_agreement": total.agreement,
            "fidelity.jsd": total.jsd,
        }
        perplexities = scores.perplexities(self._blocks.domain_names)
        of_domains = in_domains("test.perplexity.", role, perplexities)
        return Row(name, role, measured(metrics) | of_domains)


def _size(num_params: int) -> dict[str, float]:
    return {"student.params": num_params, SIZE: num_params * 4 / 1e6}


def _generated(scores: GenerationScores) -> dict[str, float]:
    return {"test.exact_match": scores.exact_match, "test.rouge_l": scores.rouge_l}


def _sizes(teacher: ServedTeacher) -> tuple[int, int]:
    """Parameters of its model, or of the base that it is an adapter on, and of the adapter."""
    info = check_language_folder(teacher.folder, teacher.serving.allow_pickle)
    return info.num_params, read_adapter(teacher.adapter).num_params if teacher.adapter else 0


def compressed(rows: list[Row]) -> list[Row]:
    """How many times smaller than the largest teacher."""
    teachers = [row.params or 0 for row in rows if row.role == "expert"]
    if not teachers:
        return rows
    return [
        row.having({"compression": max(teachers) / row.params})
        if row.role in ("baseline", "link", "student") and row.params
        else row
        for row in rows
    ]
