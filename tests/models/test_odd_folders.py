"""Folders of unusual families: a classifier, or one clear refusal before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_multimodal import TEXT, VISION, save_multimodal
from tiny_models import LABELS, NUM_LANGUAGE_TOKENS, save_decoder, save_language_tokenizer
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from distill.data.encode import padded
from distill.errors import ModelError
from distill.models.language import check_language_folder
from distill.models.load import check_folder, load_base_for_classification, load_classifier

END = 1
ROWS = [[5, 6, 7, 8, 9, 10, END], [12, 5, END], [6, END]]
SIZES: dict[str, Any] = {
    "vocab_size": NUM_LANGUAGE_TOKENS,
    "hidden_size": 16,
    "d_model": 16,
    "dim": 16,
    "emb_dim": 16,
    "num_hidden_layers": 2,
    "n_layers": 2,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "num_attention_heads": 2,
    "n_heads": 2,
    "num_heads": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "intermediate_size": 24,
    "hidden_dim": 24,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "d_ff": 24,
    "d_inner": 24,
    "d_kv": 8,
    "d_head": 8,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": END,
    "embed_dim": 16,
    "image_size": 16,
    "patch_size": 8,
    "d_latents": 16,
    "num_latents": 4,
    "num_self_attends_per_block": 1,
    "num_self_attention_heads": 2,
    "num_cross_attention_heads": 2,
}


def save_odd(folder: Path, family: str) -> Any:
    config = AutoConfig.for_model(family)
    for key, value in SIZES.items():
        if hasattr(config, key) and not isinstance(getattr(type(config), key, None), property):
            setattr(config, key, value)
    config.id2label = dict(enumerate(LABELS))
    config.label2id = {name: i for i, name in enumerate(LABELS)}
    known = type(config) in AutoModelForSequenceClassification._model_mapping
    with torch.random.fork_rng():
        torch.manual_seed(3)
        auto = AutoModelForSequenceClassification if known else AutoModel
        model = auto.from_config(config).eval()
    model.save_pretrained(folder)
    save_language_tokenizer(folder, eos_token="<unk>", pad_token="<eos>")
    return model


@pytest.mark.parametrize(
    "family", ["distilbert", "electra", "albert", "mpnet", "bart", "umt5", "xlm"]
)
def test_a_padded_row_is_the_row_alone(family: str, tmp_path: Path) -> None:
    model = save_odd(tmp_path, family)
    info = check_folder(tmp_path)
    assert (info.label_names, info.num_layers, info.hidden) == (LABELS, 2, 16)
    ids_BT, mask_BT, _ = padded(ROWS, None, 0)
    with torch.no_grad():
        alone = torch.cat([model(input_ids=torch.tensor([row])).logits for row in ROWS])
        found = load_classifier(tmp_path)(
            input_ids=torch.from_numpy(ids_BT), attention_mask=torch.from_numpy(mask_BT)
        )
    torch.testing.assert_close(found.logits, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("family", "part"),
    [
        ("canine", "of a canine model has no vocab_size"),
        ("perceiver", "of a perceiver model has no hidden_size"),
        ("vit", "is a vit model, which transformers has no classifier of texts for"),
        ("pegasus", "is a pegasus model, which transformers has no classifier of texts for"),
        ("fnet", "is a fnet model, whose logits of a text depend on how far its batch is padded"),
        ("convbert", "is a convbert model, whose logits of a text depend on how far"),
        ("xlnet", "is a xlnet model, whose logits of a text depend on how far"),
    ],
)
def test_others_are_refused(family: str, part: str, tmp_path: Path) -> None:
    save_odd(tmp_path, family)
    for check in (check_folder, load_classifier):
        with pytest.raises(ModelError, match=f"{part}.*: give the folder of another model"):
            check(tmp_path)


@pytest.mark.parametrize("family", ["distilbert", "bart", "umt5", "vit", "fnet"])
def test_none_of_them_is_a_language_model(family: str, tmp_path: Path) -> None:
    save_odd(tmp_path, family)
    with pytest.raises(ModelError, match=f"is a {family} model, not a causal language model"):
        check_language_folder(tmp_path)


def test_a_multimodal_classifier_reads_text(tmp_path: Path) -> None:
    config = AutoConfig.for_model(
        "gemma3",
        text_config=TEXT,
        vision_config=VISION,
        image_token_id=NUM_LANGUAGE_TOKENS - 1,
        id2label=dict(enumerate(LABELS)),
        label2id={name: i for i, name in enumerate(LABELS)},
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = AutoModelForSequenceClassification.from_config(config).eval()
    model.save_pretrained(tmp_path)
    save_language_tokenizer(tmp_path)
    assert check_folder(tmp_path).num_layers == 2
    ids_BT, mask_BT, _ = padded(ROWS, None, 9)
    with torch.no_grad():
        alone = torch.cat([model(input_ids=torch.tensor([row])).logits for row in ROWS])
        found = load_classifier(tmp_path)(
            input_ids=torch.from_numpy(ids_BT), attention_mask=torch.from_numpy(mask_BT)
        )
    torch.testing.assert_close(found.logits, alone, atol=1e-5, rtol=0)


def test_a_multimodal_language_model_has_no_classification_head(tmp_path: Path) -> None:
    save_multimodal(tmp_path, "gemma3")
    assert not check_folder(tmp_path).has_classifier_head
    with pytest.raises(ModelError, match="has no sequence-classification head: fine-tune it first"):
        load_classifier(tmp_path)


def test_a_language_model_under_a_fresh_head(tmp_path: Path) -> None:
    save_decoder(tmp_path, "qwen2")
    model = load_base_for_classification(tmp_path, ["a", "b"], seed=1)
    ids_BT, mask_BT, _ = padded(ROWS, None, 9)
    with torch.no_grad():
        alone = torch.cat([model(input_ids=torch.tensor([row])).logits for row in ROWS])
        found = model(input_ids=torch.from_numpy(ids_BT), attention_mask=torch.from_numpy(mask_BT))
    torch.testing.assert_close(found.logits, alone, atol=1e-5, rtol=0)
