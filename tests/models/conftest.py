from pathlib import Path

import pytest
import torch
from tiny_models import save_tokenizer, tiny_config
from transformers import BertForSequenceClassification, BertModel


@pytest.fixture
def classifier_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "classifier"
    with torch.random.fork_rng():
        torch.manual_seed(11)
        BertForSequenceClassification(tiny_config()).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture
def encoder_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "encoder"
    with torch.random.fork_rng():
        torch.manual_seed(12)
        BertModel(tiny_config(num_hidden_layers=3)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder
