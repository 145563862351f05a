"""The examples of docs/contributing/ work: their code is run and its result used.

The ```python blocks of a page, in their order, are one module; a block below
``<!-- a part of a program -->`` is not in it.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from distill import metrics
from distill.config import parse
from distill.config.tasks import TASKS
from distill.driver.checks.check import check
from distill.driver.pipeline import Work, own_job
from distill.errors import TeacherError
from distill.models.load import load_classifier
from distill.objectives import ForwardKL
from distill.records import ScheduleValues, TeacherAnswers
from distill.report.progress import Progress
from distill.run_folder import RunFolder
from distill.teachers.backends import BACKENDS, backend_class, open_backends
from distill.teachers.local import LocalTeachers
from distill.teachers.requests import HeadRequest, TeacherRequest
from distill.training.class_module import DistillModule
from distill.training.job import Job
from distill.transform import Code
from tests.docs.pages import ROOT, blocks
from tests.objective_references import by_row, kl
from tests.toys import NUM_CLASSES, ToyTeachers, tiny_bert, toy_batches, toy_experiment
from tests.transform.programs import programs

REGISTRIES: tuple[dict[str, Any], ...] = (TASKS, BACKENDS, metrics.TASKS, metrics.METRICS)
"""What an example may add itself to."""


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Callable[[str], ModuleType]]:
    """The module of a page; its classes pickle as long as the test runs."""
    loaded = []

    def load(page: str) -> ModuleType:
        path = ROOT / "docs/contributing" / f"{page}.md"
        parts = [b.text for b in blocks(path, "python") if b.mark != "a part of a program"]
        lines = [line for part in parts for line in part.splitlines()]
        name = f"example_{page.replace('-', '_')}"
        future = "from __future__ import annotations"  # must be the first statement
        text = "\n".join([future, *(line for line in lines if line != future)])
        source = tmp_path / f"{name}.py"
        source.write_text(text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, source)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        loaded.append(name)
        spec.loader.exec_module(module)
        return module

    before = [dict(registry) for registry in REGISTRIES]
    yield load
    for registry, entries in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(entries)
    for name in loaded:
        del sys.modules[name]


def trained_losses(module: DistillModule, num_steps: int = 20) -> list[float]:
    """The loss of each step on one batch of twelve rows, with the outputs of two teachers."""
    models = [tiny_bert(8), tiny_bert(9)]
    for model in models:
        model.classifier.weight.data *= 20  # outputs that differ between rows
    teachers = ToyTeachers(models, all_teachers=True)
    ((batch, answers),) = next(iter(teachers.feed(toy_batches(), 0, 1))).parts
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    losses = []
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss = module(batch, answers, ScheduleValues(temperature=2.0, alpha=1.0)).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_the_objective_is_its_equation_and_trains(example: Callable[[str], ModuleType]):
    page = example("objective")
    objective = page.Jeffreys(share=0.3)
    logits_T_NV, logits_S_NV = torch.randn(2, 5, 4, dtype=torch.double).unbind()
    logp_T_NV = torch.log_softmax(logits_T_NV / 2, -1)
    logp_S_NV = torch.log_softmax(logits_S_NV / 2, -1)
    found_N = objective.terms(logp_T_NV, logp_S_NV).sum(-1)
    expected = by_row(lambda p, q: 0.3 * kl(p, q) + 0.7 * kl(q, p))
    labels = torch.zeros(5, dtype=torch.long).numpy()
    expected_N = torch.from_numpy(expected(logits_T_NV.numpy(), logits_S_NV.numpy(), labels, 2.0))
    torch.testing.assert_close(found_N, expected_N)
    with pytest.raises(ValueError, match="share"):
        page.Jeffreys(share=1)
    losses = trained_losses(page.loss_module(tiny_bert(0), NUM_CLASSES))
    assert losses[-1] < 0.5 * losses[0]


def test_the_aggregation_weighs_and_trains(example: Callable[[str], ModuleType]):
    vote = example("aggregation").Vote()
    logits_KBV = torch.randn(3, 20, 4)
    queried_KB = torch.rand(3, 20) < 0.6
    queried_KB[0] = True
    answers = TeacherAnswers(logits_KBV * queried_KB[..., None], queried_KB)
    weights_KB = vote.weigh(answers, None, None).weights_KB
    torch.testing.assert_close(weights_KB.sum(0), torch.ones(20))
    assert (weights_KB[~queried_KB] == 0).all() and (weights_KB[queried_KB] > 0).all()
    module = DistillModule(tiny_bert(0), ForwardKL(), vote, ("a", "b"), NUM_CLASSES)
    losses = trained_losses(module)
    assert losses[-1] < 0.5 * losses[0]


def test_the_transformation_keeps_what_programs_print(example: Callable[[str], ModuleType]):
    page = example("transformation")
    corpus = list(itertools.islice(programs("python").values(), 12))
    pairs = [(text, page.parentheses(Code.parse(text, "python"), Random(0))) for text in corpus]
    changed = [(before, after) for before, after in pairs if before != after]
    assert len(changed) >= 6
    for before, after in changed:
        assert printed(before) == printed(after) != ""
    for language in ("c", "java"):
        codes = [Code.parse(text, language) for text in programs(language).values()]
        results = [page.parentheses(code, Random(1)) for code in codes if code.is_valid]
        assert all(Code.parse(result, language).is_valid for result in results)
        assert set(results) - {code.text for code in codes}


GRADES = ("bad", "fine", "great")


def test_the_task_selects_weights_by_its_own_metric(
    example: Callable[[str], ModuleType], tmp_path: Path
):
    page = example("task")
    job = job_of_grades(tmp_path)
    assert page.trained(job) == job.model_folder
    done = json.loads((job.model_folder.parent / "done.json").read_text())
    model = load_classifier(job.model_folder).eval()
    corpus, rows = job.data.open().corpus, np.asarray(job.validation_rows)
    tokens = job.data.open().padded(rows)
    with torch.no_grad():
        logits_RC = model(*map(torch.from_numpy, (tokens.input_ids_BT, tokens.attention_mask_BT)))
    errors_R = logits_RC.logits.argmax(-1).numpy() - corpus.labels_of(rows)
    assert done["best"] == pytest.approx(-abs(errors_R).mean()) and abs(errors_R).max() == 2


def job_of_grades(root: Path) -> Job:
    """Three grades; each row has one word that shows its grade, in one of six a neighbour's."""
    rng = np.random.default_rng(0)
    grades = rng.integers(0, 3, 90)
    shown = np.where(rng.random(90) < 1 / 6, (grades + 1) % 3, grades)
    splits = ["train", "train", "train", "validation", "test"] * 18
    texts = [f"the plot was {GRADES[grade]}" for grade in shown]
    table = pa.table({"text": texts, "label": grades.astype(str), "split": splits})
    pq.write_table(table, root / "grades.parquet")
    raw = toy_experiment(
        root,
        task="grades",
        student={"layers": 1, "hidden": 16, "heads": 2, "tokenizer": str(root / "encoder")},
        trainer={"epochs": 16, "batch_size": 16, "engine": "torch", "eval_every": 16},
    )
    data = {"path": str(root / "grades.parquet"), "columns": {"split": "split"}, "max_length": 16}
    raw["data"] = raw["data"] | data
    for key in ("experts", "aggregation", "kd", "baselines"):
        del raw[key]
    plan = check(parse(raw))
    return own_job(Work(plan, RunFolder(plan.experiment.output), Progress(StringIO())))


def test_the_backend_serves_the_outputs_of_its_model(
    example: Callable[[str], ModuleType], tmp_path: Path
):
    page = example("teacher-backend")
    BACKENDS["rules"] = f"{page.__name__}:RulesBackend"
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"good": [0, 2.5], "bad": [1.5, 0]}))
    teacher = page.served(tmp_path)
    client = LocalTeachers(open_backends([teacher]))
    texts = np.array(["Good film", "bad good bad", "film"], object)
    for rows in ([0, 1, 2], [2, 0]):  # in any order
        request = TeacherRequest("r", np.array(rows), texts_B=texts[rows])
        output = client.call("rules", request)
        request.check(output, teacher.width)
        expected = np.array([[0, 2.5], [3, 2.5], [0, 0]])[rows]
        assert (
            teacher.wire.logits(torch.from_numpy(output.payload), None).numpy() == expected
        ).all()
    with pytest.raises(TeacherError, match="RulesBackend serves TeacherRequest, not HeadRequest"):
        client.call("rules", HeadRequest())
    before = backend_class("rules").fingerprint(teacher)
    rules.write_text(json.dumps({"good": [0, 2]}))
    assert backend_class("rules").fingerprint(teacher) != before


def printed(program: str) -> str:
    output = StringIO()
    with redirect_stdout(output):
        exec(compile(program, "program", "exec"), {"__name__": "__main__"})
    return output.getvalue()
