"""What a router of lowest_loss learns: whose loss on a row is lowest, measured once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from distill.config import parse
from distill.driver.checks.check import check
from distill.experts.jobs import expert_jobs
from distill.experts.losses import losses_file, lowest_loss, measure_losses
from distill.experts.partition import by_column
from distill.experts.router import router_job, router_targets
from distill.models.load import load_classifier
from distill.tasks.classification.specs import DataSpec
from distill.training.fit import fit_and_save
from tests.toys import DOMAINS, toy_experiment


def test_ties_go_to_the_rows_own_part() -> None:
    losses_KR = np.array([[0.1, 0.5, 0.2, 0.3], [0.2, 0.5, 0.2, 0.1], [0.3, 0.5, 0.9, 0.1]])
    own_R = np.array([0, 2, 2, 0])
    # Alone lowest; all equal, so its own; a tie without its own; its own is beaten by a tie.
    assert lowest_loss(losses_KR, own_R).tolist() == [0, 2, 0, 1]


def test_the_router_learns_the_expert_with_the_lowest_loss(tmp_path: Path) -> None:
    experiment = parse(toy_experiment(tmp_path))
    corpus, experts = check(experiment).corpus, experiment.experts
    assert experts is not None
    experts = experts.model_copy(update={"epochs": 2.0})
    parts = by_column(corpus, ("train", "validation", "test"))
    data = DataSpec(str(corpus.folder), experts.base, experiment.data.max_length)
    jobs = expert_jobs(experts, parts, data, tmp_path / "experts", seed=0)
    losses_KR = []
    for job in jobs:
        fit_and_save(job)
        measure_losses(job)
        written = losses_file(job).stat().st_mtime_ns
        measure_losses(job)
        assert losses_file(job).stat().st_mtime_ns == written
        losses_KR.append(np.load(losses_file(job))["train"])
        # One row alone, the definition: −log p(y).
        row = corpus.rows("train")[7]
        shown = data.open().padded([row])
        ids_BT, mask_BT = map(torch.from_numpy, (shown.input_ids_BT, shown.attention_mask_BT))
        with torch.no_grad():
            logits_BV = load_classifier(job.model_folder)(ids_BT, mask_BT).logits
        want = -logits_BV.log_softmax(-1)[0, corpus.labels_of([row])[0]]
        assert abs(losses_KR[-1][7] - want.item()) < 1e-5
    targets = router_targets(parts, jobs)
    assert targets["train"].tolist() == np.stack(losses_KR).argmin(0).tolist()
    assert len(targets["validation"]) == len(corpus.rows("validation"))
    router = router_job(experts, parts, data, tmp_path / "experts", 0)
    assert router.train_labels is parts.assigned["train"]
    assert router.model.label_names == DOMAINS
