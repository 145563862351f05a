"""A mixture of experts as a student keeps its load-balancing loss.

Shape suffixes: B rows, T tokens, E experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from distill.config import Lora
from distill.data.block_file import positions
from distill.errors import ModelError
from distill.models.language_student import with_lora
from distill.models.load_balancing import LoadBalancing
from distill.records import Batch, ScheduleValues
from distill.training.token_module import TokenModule
from tests.toys_language import NUM_TOKENS, llama
from tests.toys_moe import FAMILIES, NUM_EXPERTS, OWN, mixture

COEFFICIENT = 0.25


def student(family: str = "mixtral", coefficient: float = COEFFICIENT, num_layers: int = 2) -> Any:
    model: Any = mixture(family, num_layers=num_layers)
    model.router_aux_loss_coef = coefficient
    return model


def batch_of(rows: Sequence[Sequence[int]], num_valid: int | None = None, seed: int = 0) -> Batch:
    """Rows of packed sequences of these sizes, padded on the right; all but first tokens count."""
    num_tokens = max(map(sum, rows))
    ids_BT = np.random.default_rng(seed).integers(1, NUM_TOKENS, (len(rows), num_tokens))
    positions_BT = np.stack([positions([*row, num_tokens - sum(row)]) for row in rows])
    targets_BT = np.zeros(ids_BT.shape, bool)
    for b, row in enumerate(rows):
        ids_BT[b, sum(row) :] = 0
        for stop, size in zip(np.cumsum(row), row, strict=True):
            targets_BT[b, stop - size : stop - 1] = True
    return Batch(
        rows_B=np.arange(len(rows)),
        labels_B=torch.full((len(rows),), -100),
        domains_B=torch.full((len(rows),), -1),
        valid_B=torch.full((len(rows),), True),
        num_valid=num_valid or int(targets_BT.sum()),
        num_labelled=0,
        input_ids_BT=torch.from_numpy(ids_BT),
        position_ids_BT=torch.from_numpy(positions_BT),
        targets_BT=torch.from_numpy(targets_BT),
    )


def loss_of(model: Any, batch: Batch) -> Any:
    return TokenModule(model, NUM_TOKENS).train()(batch, None, ScheduleValues())


def gate_of(model: Any) -> torch.Tensor:
    return model.model.layers[0].mlp.gate.weight


def gradient_of(model: Any, batch: Batch) -> torch.Tensor:
    return torch.autograd.grad(loss_of(model, batch).loss, gate_of(model))[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_that_of_transformers_on_the_same_batch(family: str) -> None:
    """Padding, which has no mask here, counts for nothing."""
    batch = batch_of([[9], [4], [6]])
    assert batch.input_ids_BT is not None
    model = student(family)
    mask_BT = torch.arange(9)[None] < torch.tensor([[9], [4], [6]])
    theirs = model(
        input_ids=batch.input_ids_BT,
        attention_mask=mask_BT.long(),
        labels=batch.input_ids_BT.masked_fill(~mask_BT, -100),
        output_router_logits=True,
    )
    (expected,) = torch.autograd.grad(theirs.loss, gate_of(model))
    found = loss_of(model, batch)
    torch.testing.assert_close(found.loss, theirs.loss)
    torch.testing.assert_close(gradient_of(model, batch), expected)
    text = found.metrics["balance.loss"]
    torch.testing.assert_close(text.sum / text.count, theirs.aux_loss)
    unmasked = model(input_ids=batch.input_ids_BT, output_router_logits=True).aux_loss
    assert abs(float(unmasked.detach() - theirs.aux_loss.detach())) > 1e-3, "padding would count"


def test_packed_sequences_are_balanced_as_they_are_alone() -> None:
    packed, apart = batch_of([[5, 4], [3, 2]]), batch_of([[5], [4], [3], [2]])
    assert packed.input_ids_BT is not None and apart.input_ids_BT is not None
    places = [(0, slice(0, 5)), (0, slice(5, 9)), (1, slice(0, 3)), (1, slice(3, 5))]
    for row, (b, place) in enumerate(places):
        part = packed.input_ids_BT[b, place]
        apart.input_ids_BT[row, : len(part)] = part
    together, alone = loss_of(student(), packed), loss_of(student(), apart)
    torch.testing.assert_close(together.metrics["balance.loss"], alone.metrics["balance.loss"])


def test_micro_batches_weigh_their_share_of_the_positions() -> None:
    rows = [[9], [3]]
    whole = batch_of(rows)
    parts = [batch_of([row], whole.num_valid, seed=i) for i, row in enumerate(rows)]
    text = [loss_of(student(), part).metrics["balance.loss"] for part in parts]
    values = [float(mean.sum / mean.count) for mean in text]
    added = [
        float(
            (loss_of(student(), part).loss - loss_of(student(coefficient=0.0), part).loss).detach()
        )
        for part in parts
    ]
    shares = [8 / 10, 2 / 10]
    expected = [COEFFICIENT * v * share for v, share in zip(values, shares, strict=True)]
    assert added == pytest.approx(expected, rel=1e-4)
    assert sum(float(mean.count) for mean in text) == whole.num_valid


def test_without_a_coefficient_and_in_evaluation_nothing_is_added() -> None:
    batch = batch_of([[9], [3]])
    for model in (student(coefficient=0.0), llama(0)):
        assert LoadBalancing.of(model) is None
        assert "balance.loss" not in loss_of(model, batch).metrics
    evaluated = TokenModule(student(), NUM_TOKENS).eval()(batch, None, ScheduleValues())
    assert torch.equal(evaluated.loss, loss_of(student(coefficient=0.0), batch).loss)


def test_a_rank_without_a_row_adds_nothing_and_reports_the_same_names() -> None:
    batch = batch_of([[9]])
    assert batch.targets_BT is not None
    batch.targets_BT[:] = False
    found = loss_of(student(), batch)
    assert float(found.loss.detach()) == 0
    assert "balance.loss" in found.metrics
    assert float(found.metrics["balance.loss"].count) == 0


def test_low_rank_updates_keep_it() -> None:
    model = with_lora(student(), Lora(rank=2, targets=("q_proj",)), seed=0)
    assert LoadBalancing.of(model) == LoadBalancing.of(student())


def test_a_loss_that_cannot_be_computed_is_refused() -> None:
    model: Any = llama(0)
    model.router_aux_loss_coef = 0.01
    with pytest.raises(ModelError, match=r"llama.* router_aux_loss_coef is 0\.01.*config\.json"):
        LoadBalancing.of(model)


def busiest(model: Any, batch: Batch) -> float:
    """The share of the first layer's tokens that its busiest expert is given."""
    router_logits = model.model(**batch.inputs(), output_router_logits=True).router_logits[0]
    counts_E = router_logits.topk(OWN, dim=-1).indices.flatten().bincount(minlength=NUM_EXPERTS)
    return float(counts_E.max() / counts_E.sum() * OWN)


def trained(coefficient: float) -> tuple[float, float]:
    """The busiest expert's share before and after training, from a router that prefers one. Of one
    layer: the loss is of all layers together, which may be uneven in opposite ways."""
    model, batch = student("qwen3", coefficient, num_layers=1), batch_of([[24]] * 4)
    seen: list[torch.Tensor] = []
    gate = model.model.layers[0].mlp.gate
    hook = gate.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    with torch.no_grad():
        model.model(**batch.inputs())
        mean_H = seen[0].flatten(0, -2).mean(0)
        gate.weight[0] += 4 * mean_H / mean_H.norm() ** 2
    hook.remove()
    before = busiest(model, batch)
    module = TokenModule(model, NUM_TOKENS).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(40):
        optimizer.zero_grad()
        module(batch, None, ScheduleValues()).loss.backward()
        optimizer.step()
    return before, busiest(model, batch)


def test_a_skewed_router_is_evened_out() -> None:
    (before, without), (same, with_it) = trained(0.0), trained(1.0)
    assert before == same
    assert before > 0.9
    assert without > 0.7
    assert with_it < 0.6, "OWN of NUM_EXPERTS, evenly, are 0.5"


@pytest.mark.parametrize("family", FAMILIES)
def test_activations_that_are_computed_again_change_no_gradient(family: str) -> None:
    batch = batch_of([[9], [4], [6]])
    saving = student(family)
    saving.activation_checkpointing_enable({"use_reentrant": False})
    assert torch.equal(gradient_of(saving, batch), gradient_of(student(family), batch))
