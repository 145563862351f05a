"""A decoder's row in a batch has the logits that transformers gives it alone.

Shape suffixes: B rows, T tokens.
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import (
    LABELS,
    decoder_config,
    save_decoder,
    save_language_tokenizer,
    save_tokenizer,
    tiny_config,
)
from tokenizers import processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
)

from distill.data.encode import padded
from distill.export.folder import ModelCard, export
from distill.models.language import load_language_model
from distill.models.load import (
    load_base_for_classification,
    load_classifier,
    was_read_at_padding,
)
from distill.models.tokenizer import fingerprint_of, load_fast_tokenizer, pad_id
from distill.teachers.cache import TeacherKey
from distill.teachers.requests import TeacherRequest
from tests.toys_teachers import backend_of

EOS = 0
ROWS = [[5, 6, 7, 8, 9, 10, 11], [12, 5], [6, 7, 8, EOS], [EOS, 9, EOS, 5, EOS, EOS], [5]]
SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
SIZES += ("num_attention_heads", "num_key_value_heads")
OTHERS: dict[str, dict[str, Any]] = {
    "bloom": {},
    "gpt_neox": {},
    "ctrl": {"dff": 24},
    "gemma3_text": {"head_dim": 8},
    "qwen3_5_text": {
        "head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    },
}


def save_classifier(folder: Path, family: str, pad: int | None = None, **special: Any) -> None:
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {n: i for i, n in enumerate(LABELS)}}
    if family in OTHERS:
        config = AutoConfig.for_model(family, **OTHERS[family])
        for key, value in decoder_config("llama").to_diff_dict().items():
            if key in SIZES and hasattr(config, key):
                setattr(config, key, value)
        if hasattr(config, "layer_types"):
            config.layer_types = config.layer_types[: config.num_hidden_layers]
        config.initializer_range = 0.5
        for key, value in labels.items():
            setattr(config, key, value)
    else:
        config = decoder_config(family, **labels)
    config.pad_token_id = None
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = AutoModelForSequenceClassification.from_config(config)
        model.save_pretrained(folder)
    kept = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**kept, "pad_token_id": pad}))
    save_language_tokenizer(folder, **special)


@torch.no_grad()
def alone(folder: Path) -> torch.Tensor:
    """As published, a row at a time, in transformers."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return torch.cat([model(input_ids=torch.tensor([row])).logits for row in ROWS])


@torch.no_grad()
def batched(model: Any, fill: int) -> torch.Tensor:
    ids_BT, mask_BT, _ = padded(ROWS, None, fill)
    found = model(input_ids=torch.from_numpy(ids_BT), attention_mask=torch.from_numpy(mask_BT))
    return found.logits


@pytest.mark.parametrize("family", ["gpt2", "qwen2", "llama", "mixtral", *OTHERS])
def test_without_a_padding_id_a_row_is_read_at_its_last_token(family: str, tmp_path: Path) -> None:
    """Also one that ends in the token that pads."""
    save_classifier(tmp_path, family)
    model = load_classifier(tmp_path)
    fill = pad_id(load_fast_tokenizer(tmp_path))
    assert fill == EOS
    torch.testing.assert_close(batched(model, fill), alone(tmp_path), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
@pytest.mark.parametrize("pad", [EOS, 5, -1])
def test_with_a_padding_id_as_transformers_reads_it(family: str, pad: int, tmp_path: Path) -> None:
    """Whatever the tokenizer pads with: before, a row was read on its padding for 5 and -1."""
    save_classifier(tmp_path, family, pad=pad)
    model = load_classifier(tmp_path)
    expected = alone(tmp_path)
    for fill in (EOS, 9):
        torch.testing.assert_close(batched(model, fill), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("pad", "is_other"), [(EOS, False), (None, False), (5, True), (-1, True)])
def test_answers_that_were_read_at_padding_are_told_from_new_ones(
    pad: int | None, is_other: bool, tmp_path: Path
) -> None:
    """By the keys of caches; where nothing was wrong they stay."""
    save_classifier(tmp_path / "decoder", "gpt2", pad=pad)
    assert was_read_at_padding(tmp_path / "decoder") is is_other
    key = TeacherKey("w", "d", "t", "dense/float32", 16)
    assert "pooling" not in key.text
    assert key.fingerprint != replace(key, pooling="mask").fingerprint


def test_a_teacher_answers_unequal_rows(tmp_path: Path) -> None:
    save_classifier(tmp_path, "gpt2", pad_token=None)
    assert AutoTokenizer.from_pretrained(tmp_path).pad_token is None
    ids_BT, mask_BT, _ = padded(ROWS, None, pad_id(load_fast_tokenizer(tmp_path)))
    request = TeacherRequest("r", np.arange(len(ROWS)), ids_BT, mask_BT)
    found = backend_of(tmp_path, num_labels=len(LABELS)).answer(request).payload
    logits = torch.from_numpy(found.view(np.float32).reshape(len(ROWS), -1).copy())
    torch.testing.assert_close(logits, alone(tmp_path), atol=1e-5, rtol=0)


@pytest.mark.parametrize("ends", [False, True], ids=["plain", "ends in the padding"])
def test_an_exported_student_is_read_at_the_same_tokens(ends: bool, tmp_path: Path) -> None:
    """transformers takes batches of it, but where that would read another token."""
    start, out = tmp_path / "start", tmp_path / "out"
    save_classifier(start, "qwen2", pad_token="<unk>" if not ends else "<eos>")
    tokenizer = AutoTokenizer.from_pretrained(start)
    if ends:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="$A <eos>", special_tokens=[("<eos>", EOS)]
        )
        tokenizer.save_pretrained(start)
    student = load_classifier(start)
    export(student, start, out, ModelCard("s"))
    torch.testing.assert_close(alone(out), batched(student, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        batched(load_classifier(out), 1), batched(student, 1), atol=1e-5, rtol=0
    )
    published = AutoConfig.from_pretrained(out).pad_token_id
    assert published == (None if ends else tokenizer.pad_token_id)
    if not ends:
        model = AutoModelForSequenceClassification.from_pretrained(out).eval()
        torch.testing.assert_close(batched(model, 1), batched(student, 1), atol=1e-5, rtol=0)


def test_a_fresh_head_and_a_copy_pool_alike(tmp_path: Path) -> None:
    save_classifier(tmp_path, "gpt2")
    model = load_base_for_classification(tmp_path, ["a", "b"], seed=1)
    expected = batched(model, EOS)
    other = copy.deepcopy(model)
    with torch.no_grad():
        one = model(
            input_ids=torch.tensor([ROWS[2]]), attention_mask=torch.ones(1, 4, dtype=torch.long)
        ).logits
    torch.testing.assert_close(expected[2:3], one, atol=1e-5, rtol=0)
    torch.testing.assert_close(batched(other, 9), expected, atol=1e-5, rtol=0)


def test_an_encoder_is_left_as_it_is(tmp_path: Path) -> None:
    BertForSequenceClassification(tiny_config()).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    model: Any = load_classifier(tmp_path)
    assert not model._forward_pre_hooks and not model.classifier._forward_hooks
    assert not was_read_at_padding(tmp_path)


def test_a_tokenizer_without_padding_is_one_that_pads_with_its_end(tmp_path: Path) -> None:
    """So nobody has to edit the folder of Llama 3 or GPT-2; with neither, any id fills rows."""
    for name, special in {
        "published": {"pad_token": None},
        "edited": {"pad_token": "<eos>"},
        "other": {"pad_token": "<unk>"},
        "neither": {"pad_token": None, "eos_token": None},
    }.items():
        save_language_tokenizer(tmp_path / name, **special)
    found = {folder.name: load_fast_tokenizer(folder) for folder in tmp_path.iterdir()}
    assert {name: pad_id(t) for name, t in found.items()} == {
        "published": 0,
        "edited": 0,
        "other": 1,
        "neither": 0,
    }
    assert fingerprint_of(found["published"]) == fingerprint_of(found["edited"])
    assert fingerprint_of(found["published"]) != fingerprint_of(found["other"])
    assert found["published"].pad_token is None  # and the export has it as it was


def test_a_language_model_without_padding_generates_after_export(tmp_path: Path) -> None:
    start, out = tmp_path / "start", tmp_path / "out"
    save_decoder(start, "llama")
    save_language_tokenizer(start, pad_token=None)
    export(load_language_model(start), start, out, ModelCard("s"))
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.pad_token is None
    model = AutoModelForCausalLM.from_pretrained(out)
    made = model.generate(
        **tokenizer("the good film", return_tensors="pt"), max_new_tokens=4, do_sample=False
    )
    assert made.shape[1] > 3
