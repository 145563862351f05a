import re
import shutil
import stat
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    pipeline,
)

from distill.errors import RunFolderError
from distill.export.folder import ModelCard, export
from distill.models.load import check_folder

LABELS = {0: "bad", 1: "good"}
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "fine", "film", "dull"]
CARD = ModelCard(
    name="tiny-student",
    teachers=("expert-1", "expert-2"),
    aggregation="mean",
    objective="forward_kl",
    temperature=2.0,
    alpha=0.5,
    data_fingerprint="c0ffee",
    metrics={"test.accuracy": 0.9125},
)


def make(seed: int) -> BertForSequenceClassification:
    config = BertConfig(
        vocab_size=len(TOKENS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
        id2label=LABELS,
        label2id={name: index for index, name in LABELS.items()},
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BertForSequenceClassification(config).eval()


@pytest.fixture
def tokenizer_folder(tmp_path: Path) -> Path:
    vocab = {token: index for index, token in enumerate(TOKENS)}
    BertTokenizer(vocab=vocab).save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def logits(model: BertForSequenceClassification) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[2, 5, 6, 7, 3]])).logits


def test_transformers_alone_gives_the_same_logits(tmp_path, tokenizer_folder):
    model = make(1)
    export(model, tokenizer_folder, tmp_path / "out", CARD)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert torch.equal(logits(loaded), logits(model))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("A fine film")["input_ids"] == [2, 5, 6, 7, 3]

    classify = pipeline("text-classification", model=str(tmp_path / "out"))
    best = logits(model).softmax(-1).max(-1)
    answer = classify("a fine film")[0]
    assert answer["label"] == LABELS[int(best.indices)]
    assert answer["score"] == pytest.approx(float(best.values), abs=1e-6)
    classify("a fine film " * 50, truncation=True)  # longer than the model's positions


def test_export_is_float32_and_leaves_the_model_as_it_was(tmp_path, tokenizer_folder):
    model = make(1).to(torch.bfloat16).train()
    export(model, tokenizer_folder, tmp_path / "out", CARD)
    assert model.training and model.dtype == torch.bfloat16
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert loaded.dtype == torch.float32
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.float())


def test_card_tells_the_truth(tmp_path, tokenizer_folder):
    export(make(1), tokenizer_folder, tmp_path / "out", CARD)
    card = (tmp_path / "out" / "README.md").read_text()
    info = check_folder(tmp_path / "out")
    size = (tmp_path / "out" / "model.safetensors").stat().st_size / 1e6
    for payloads in (
        "# tiny-student",
        "expert-1, expert-2",
        "bad, good",
        f"| {info.num_params:,} |",
        f"{size:.2f} MB",
        "| test.accuracy | 0.9125 |",
        "| c0ffee |",
    ):
        assert payloads in card
    assert "distilled from 2 teacher(s)" in card
    assert re.search(r"Written \| \d{4}-\d\d-\d\d, distill \d", card)


def test_card_of_an_expert_has_no_teachers(tmp_path, tokenizer_folder):
    export(make(1), tokenizer_folder, tmp_path / "out", ModelCard(name="expert"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "fine-tuned with distill" in card
    assert not re.search(r"Teachers|Temperature|Alpha|None|distillation", card)


def test_overwriting_replaces_everything(tmp_path, tokenizer_folder):
    out = tmp_path / "out"
    export(make(1), tokenizer_folder, out, CARD)
    (out / "stale.txt").write_text("from before")
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "half.safetensors").write_text("left by a crash")
    second = make(2)
    export(second, tokenizer_folder, out, CARD)
    loaded = AutoModelForSequenceClassification.from_pretrained(out)
    assert torch.equal(logits(loaded), logits(second))
    assert not (out / "stale.txt").exists() and not (out / "half.safetensors").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"out", "tokenizer"}
    assert stat.S_IMODE(out.stat().st_mode) == stat.S_IMODE((tmp_path / "tokenizer").stat().st_mode)


def test_a_failed_export_leaves_the_old_one(tmp_path, tokenizer_folder):
    out = tmp_path / "out"
    first = make(1)
    export(first, tokenizer_folder, out, CARD)
    shutil.rmtree(tokenizer_folder)
    with pytest.raises(ValueError, match="no tokenizer folder"):
        export(make(2), tokenizer_folder, out, CARD)  # fails after the weights are written
    loaded = AutoModelForSequenceClassification.from_pretrained(out)
    assert torch.equal(logits(loaded), logits(first))


def test_a_folder_of_something_else_is_not_replaced(tmp_path, tokenizer_folder):
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match="thesis"):
        export(make(1), tokenizer_folder, out, CARD)
    assert (out / "chapter.tex").read_text() == "years of work"
