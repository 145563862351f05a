"""The end of a language-model run: test once, generate, table, plots, export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from transformers import PreTrainedModel

from distill.config import Generation
from distill.data.blocks import Blocks
from distill.evaluation.efficiency import Efficiency
from distill.evaluation.generation import GenerationScores, score_answers, write_answers
from distill.evaluation.rows import Role, Row
from distill.evaluation.teacher_answers import score_teacher
from distill.experts.partition import Parts
from distill.export.folder import export
from distill.models.adapter import read_adapter
from distill.models.language import check_language_folder
from distill.models.language_student import merged
from distill.models.load import load_tokenizer
from distill.run_folder import RunFolder
from distill.tasks.chained import Chained
from distill.tasks.classification.outcome import Outcome, card, report_weights, write_report
from distill.tasks.language_model.comparison import (
    Compared,
    Scores,
    Teachers,
    compare,
    cost_of,
    score,
)
from distill.tasks.plan import Plan
from distill.teachers.served import ServedTeacher, groups
from distill.teachers.setup import Guidance
from distill.training.fit import build_module, load_best
from distill.training.fitted import best_evaluation, history
from distill.training.interrupt import StopOnSignal
from distill.training.job import Data, Job
from distill.training.token_module import TokenModule


def evaluate_language(
    plan: Plan,
    run: RunFolder,
    chained: Chained,
    baselines: list[Job],
    parts: Parts | None,
    interrupt: StopOnSignal,
    say: Callable[[str], None],
) -> Outcome:
    """Test once: teachers and their aggregate, baselines, links of a chain, the student; then
    export it.

    The teachers of ``chained.first`` must be served, no others."""
    assert plan.blocks is not None
    rows = []
    student, guidance = chained.student, chained.first.guidance
    module = load_best(student)
    # Weights that the aggregation trains are in the module that was distilled with them.
    taught = module if chained.first is student else load_best(chained.first)
    tables = Tables(plan, guidance, interrupt.is_set, taught)
    compared: Compared | None = None
    if tables.can_compare:
        say("evaluating teachers and student on the test split")
        compared = tables.compared(student.data, module)
        rows += tables.teacher_rows(compared)
    elif guidance is not None:
        say("teachers are left out of the table: perplexities of other tokens do not compare")
    say("evaluating the untrained student and the baselines on the test split")
    rows.append(tables.untrained_row(student))
    rows += [tables.student_row(job, "baseline") for job in baselines]
    rows += [
        replace(tables.student_row(link.job, "link"), note=link.note) for link in chained.links
    ]
    say("generating answers to test prompts, and measuring the student on one CPU thread")
    row, cost = tables.row_and_cost(student, "student", module, compared)
    rows.append(row)
    rows = compressed(rows)
    row = rows[-1]
    metrics = best_evaluation(student) | {
        name: value for name, value in row.metrics().items() if value is not None
    }
    metrics["student.gflops"] = cost.gflops
    if compared is not None and compared.routing is not None:
        assert guidance is not None and taught.router is not None
        metrics |= compared.routing.metrics()
        report_weights(run.report, guidance, taught.router, compared.routing, say)
    if student.kd is not None:
        metrics |= {"kd.temperature": student.kd.temperature, "kd.alpha": student.kd.alpha}
    say("exporting the student and writing the report")
    exported = merged(module.student)
    model_card = card(plan, guidance, metrics)
    export(exported, student.data.tokenizer, run.student, model_card, chat=student.data.chat)
    jobs = [student, *baselines, *(link.job for link in chained.links)]
    histories = {job.name: history(job) for job in jobs}
    write_report(run.report, rows, histories, metrics)
    return Outcome(rows, metrics, run.student, run.report, histories)


class Tables:
    """The rows of the comparison."""

    def __init__(
        self,
        plan: Plan,
        guidance: Guidance | None,
        is_asked_to_stop: Callable[[], bool],
        routed_by: TokenModule | None = None,
    ) -> None:
        """``routed_by``: the model whose trained weights, if it has any, the teachers have for all
        students; None: each one's own."""
        assert plan.blocks is not None
        self._routed_by = routed_by
        self._plan = plan
        self._blocks: Blocks = plan.blocks
        self._guidance = guidance
        self._stop = is_asked_to_stop

    @property
    def can_compare(self) -> bool:
        """Whether there are teachers, and their tokens are the student's."""
        crosses = self._plan.experiment.objective.crosses_tokenizers
        return self._guidance is not None and not crosses

    def compared(
        self, data: Data, module: TokenModule | None = None, split: str = "test"
    ) -> Compared:
        """Teachers and, if given, a student; a second time the outputs come from the cache."""
        assert self._guidance is not None
        teachers = Teachers.of(self._guidance)
        with teachers.open(data) as stream:
            return compare(
                module,
                self._blocks,
                teachers,
                stream,
                self._guidance.aggregation,
                self._stop,
                self._plan.experiment.trainer.loss_chunk_mb,
                self._routed_by,
                split,
            )

    def teacher_rows(self, compared: Compared) -> list[Row]:
        assert self._guidance is not None
        rows = []
        together = 0
        for spec in self._guidance.teachers:
            row = self._row(spec.name, "expert", compared.teachers[spec.name])
            num_params = sum(_sizes(spec))
            row = replace(row, params=num_params, size_mb=num_params * 4 / 1e6)
            answered = self._answered(spec)
            if answered is not None:
                row = replace(row, exact_match=answered.exact_match, rouge_l=answered.rouge_l)
            rows.append(row)
        for group in groups(self._guidance.teachers):
            bases, updates = zip(*map(_sizes, group), strict=True)
            together += bases[0] + sum(updates)
        if len(rows) > 1 and compared.aggregate.by_domain:
            mix = self._row(
                f"{self._guidance.aggregation.type} ensemble", "mix", compared.aggregate
            )
            rows.append(replace(mix, params=together, size_mb=together * 4 / 1e6))
        return rows

    def untrained_row(self, job: Job) -> Row:
        """The student before training, for comparison."""
        module = build_module(job).eval()
        assert isinstance(module, TokenModule)
        row = self._row("student, untrained", "baseline", score(module, self._blocks, self._stop))
        return replace(row, params=sum(p.numel() for p in merged(module.student).parameters()))

    def student_row(self, job: Job, role: Role) -> Row:
        return self.row_and_cost(job, role, load_best(job))[0]

    def quality_row(
        self, job: Job, role: Role, module: TokenModule, compared: Compared | None = None
    ) -> Row:
        """How well a trained student predicts and generates, without its latency and memory."""
        if compared is None and self.can_compare:
            compared = self.compared(job.data, module)
        scores = compared.student if compared else score(module, self._blocks, self._stop)
        row = self._row(job.name, role, scores)
        written = self._written(module.student, job, self._plan.experiment.generation)
        if written is None:
            return row
        return replace(row, exact_match=written.exact_match, rouge_l=written.rouge_l)

    def row_and_cost(
        self, job: Job, role: Role, module: TokenModule, compared: Compared | None = None
    ) -> tuple[Row, Efficiency]:
        row = self.quality_row(job, role, module, compared)
        cost = cost_of(module.student, self._blocks.max_length)
        row = replace(
            row,
            params=cost.params,
            size_mb=cost.size_mb,
            latency_ms=cost.latency_ms,
            peak_memory_mb=cost.peak_memory_mb,
            tokens_per_s=cost.tokens_per_s,
        )
        return row, cost

    def _written(
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
            is_asked_to_stop=self._stop,
            turn_ends=self._blocks.turn_ends,
        )
        return score_answers(answers, [prompt.reference for prompt in prompts])

    def _answered(self, teacher: ServedTeacher) -> GenerationScores | None:
        """What a served teacher generates for the prompts that the student is given."""
        generation = self._plan.experiment.generation
        if self._blocks.kind == "text" or generation.num_prompts == 0:
            return None
        assert self._guidance is not None
        return score_teacher(
            self._guidance.client,
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
        return Row(
            name=name,
            role=role,
            accuracy=total.accuracy,
            perplexity=total.perplexity,
            agreement=total.agreement,
            jsd=total.jsd,
            per_domain=scores.perplexities(self._blocks.domain_names),
        )


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
        replace(row, compression=max(teachers) / row.params)
        if row.role in ("baseline", "link", "student") and row.params
        else row
        for row in rows
    ]
