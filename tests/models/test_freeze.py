import pytest
import torch
from tiny_models import tiny_config
from transformers import BertForSequenceClassification, DistilBertConfig
from transformers import DistilBertForSequenceClassification as DistilBert

from distill.errors import ModelError
from distill.models.freeze import embed, keep_first_layers, train_top_layers

IDS = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0]])
MASK = (IDS != 0).long()


def moved(model: BertForSequenceClassification) -> set[str]:
    """Parts of the model that one optimizer step changes."""
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    model(IDS, MASK, labels=torch.tensor([0, 1])).loss.backward()
    optimizer.step()
    parts = ["embeddings", "layer.0", "layer.1", "layer.2", "pooler", "classifier"]
    changed = [k for k, v in model.state_dict().items() if not torch.equal(v, before[k])]
    return {part for part in parts for name in changed if part in name}


@pytest.mark.parametrize(
    ("n", "trained"),
    [
        (0, {"pooler", "classifier"}),
        (1, {"layer.2", "pooler", "classifier"}),
        (3, {"layer.0", "layer.1", "layer.2", "pooler", "classifier"}),
        (None, {"embeddings", "layer.0", "layer.1", "layer.2", "pooler", "classifier"}),
    ],
)
def test_a_step_moves_only_what_trains(n, trained):
    model = BertForSequenceClassification(tiny_config(num_hidden_layers=3)).eval()
    train_top_layers(model, 1)  # a later call replaces an earlier one
    train_top_layers(model, n)
    assert moved(model) == trained


def test_kept_layers_give_the_hidden_state_of_that_depth():
    model = BertForSequenceClassification(tiny_config(num_hidden_layers=3)).eval()
    depths = model.base_model(IDS, MASK, output_hidden_states=True).hidden_states
    keep_first_layers(model, 2)
    assert torch.equal(model.base_model(IDS, MASK).last_hidden_state, depths[2])
    assert model.config.num_hidden_layers == 2


def test_too_many_layers_and_unknown_families_are_refused():
    model = BertForSequenceClassification(tiny_config())
    for change in (train_top_layers, keep_first_layers):
        with pytest.raises(ModelError, match="3 layers requested of a model that has 2"):
            change(model, 3)
    other = DistilBert(DistilBertConfig(vocab_size=30, dim=16, n_layers=1, n_heads=2, hidden_dim=8))
    with pytest.raises(ModelError, match="'distilbert'"):
        train_top_layers(other, 1)


def test_embedding_is_the_mean_over_a_rows_own_tokens():
    model = BertForSequenceClassification(tiny_config()).eval()
    features_BH = embed(model, {"input_ids": IDS, "attention_mask": MASK})
    for row, mask, feature in zip(IDS, MASK, features_BH, strict=True):
        alone = model.base_model(row[mask.bool()][None]).last_hidden_state.mean(1)[0]
        torch.testing.assert_close(feature, alone, rtol=1e-5, atol=1e-6)
