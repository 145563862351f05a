"""Language-model folders, the parts of a decoder, and whether vocabularies agree."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import (
    NUM_LANGUAGE_TOKENS,
    decoder,
    save_decoder,
    save_language_tokenizer,
)
from tokenizers import pre_tokenizers
from transformers import LlamaModel

from distill.errors import ModelError
from distill.models.decoder import base_of, check_linear_head, head_of
from distill.models.language import check_language_folder, load_language_model
from distill.models.tokenizer import load_tokenizer
from distill.models.vocabulary import check_tokenizer_sha256, same_vocabulary

IDS = torch.arange(2, 14).unsqueeze(0)
FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "mixtral", "olmoe", "qwen3_moe", "gpt2", "gemma")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_is_what_its_model_is(family, tmp_path):
    model = save_decoder(tmp_path, family)
    info = check_language_folder(tmp_path)
    assert info.num_params == sum(p.numel() for p in model.parameters())
    assert info.is_tied == (model.lm_head.weight is model.get_input_embeddings().weight)
    assert (info.vocab_size, info.num_tokens) == (NUM_LANGUAGE_TOKENS, NUM_LANGUAGE_TOKENS)
    assert (info.max_positions, info.num_layers, info.hidden) == (32, 4, 16)
    loaded = load_language_model(tmp_path)
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)
    hidden = base_of(loaded)(IDS).last_hidden_state
    assert torch.equal(head_of(loaded)(hidden), loaded(IDS).logits)
    check_linear_head(loaded, "student")


@pytest.mark.parametrize("family", ["gemma2", "cohere"])
def test_a_head_that_caps_or_scales_is_refused(family):
    with pytest.raises(ModelError, match=r"teachers\.a: a \w+ model .*wire\.type: dense"):
        check_linear_head(decoder(family), "teachers.a")


def test_what_is_no_language_model_is_refused(classifier_folder, encoder_folder, tmp_path):
    for folder in (classifier_folder, encoder_folder):
        with pytest.raises(ModelError, match=r"bert model, not a causal language model"):
            check_language_folder(folder)
    LlamaModel(decoder().config).save_pretrained(tmp_path / "headless")
    save_language_tokenizer(tmp_path / "headless")
    with pytest.raises(ModelError, match=r"saved from a LlamaModel.* LlamaForCausalLM"):
        check_language_folder(tmp_path / "headless")


def without(folder, name):
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_a_missing_head_or_layer_is_refused(tmp_path):
    save_decoder(tmp_path / "a", tie_word_embeddings=False)
    without(tmp_path / "a", "lm_head.weight")
    save_decoder(tmp_path / "b")
    without(tmp_path / "b", "model.layers.1.mlp.up_proj.weight")
    with pytest.raises(ModelError, match=r"lacks the language-model head \(lm_head\.weight\)"):
        check_language_folder(tmp_path / "a")
    with pytest.raises(ModelError, match=r"holds [\d,]+ of the [\d,]+ parameters"):
        check_language_folder(tmp_path / "b")
    for name in "ab":
        with pytest.raises(ModelError, match="lacks 1 weights"):
            load_language_model(tmp_path / name)


def test_files_cut_short_are_refused(tmp_path):
    model = save_decoder(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "shards")
    (tmp_path / "shards/model.safetensors").unlink()
    model.save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    shards = sorted((tmp_path / "shards").glob("model-*.safetensors"))
    assert len(shards) > 2
    assert check_language_folder(tmp_path / "shards") == check_language_folder(tmp_path / "one")
    for path in (shards[1], tmp_path / "one/model.safetensors"):
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(ModelError, match=f"{path.name} is truncated"):
            check_language_folder(path.parent)
    shards[1].unlink()
    with pytest.raises(ModelError, match=f"no {shards[1].name}, which its index names"):
        check_language_folder(tmp_path / "shards")


def test_config_that_does_not_fit_the_weights_is_refused(tmp_path):
    save_decoder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 40}))
    with pytest.raises(ModelError, match=r"embed_tokens.* \[26, 16\] .* \[40, 16\]"):
        check_language_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_language_tokenizer(tmp_path, ("one", "two"))
    with pytest.raises(ModelError, match=r"28 tokens, the model's vocabulary only 26"):
        check_language_folder(tmp_path)


def test_a_gguf_file_says_how_to_convert_it(tmp_path):
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    for path in (tmp_path, tmp_path / "tiny.gguf"):
        with pytest.raises(ModelError, match=r"distill\.models\.gguf \S+tiny\.gguf --out"):
            check_language_folder(path)


def test_padded_columns_of_one_vocabulary_are_shared(tmp_path):
    for name, width in (("a", 32), ("b", 48)):
        save_decoder(tmp_path / name, vocab_size=width)
    assert check_language_folder(tmp_path / "a").vocab_size == 32
    num = same_vocabulary(tmp_path / "a", tmp_path / "b", 32, 48)
    assert num == NUM_LANGUAGE_TOKENS
    with pytest.raises(ModelError, match="the teacher predicts 20 tokens"):
        same_vocabulary(tmp_path / "a", tmp_path / "b", 32, 20)


def test_other_vocabularies_are_refused_by_id(tmp_path):
    save_language_tokenizer(tmp_path / "a", ("one", "two"))
    save_language_tokenizer(tmp_path / "b", ("two", "one", "three"))
    with pytest.raises(ModelError) as refusal:
        same_vocabulary(tmp_path / "a", tmp_path / "b", 64, 64)
    assert "id 26 is 'one' to the student and 'two' to the teacher" in str(refusal.value)
    assert "id 28 is no token to the student and 'three'" in str(refusal.value)
    assert "objective.type: uld" in str(refusal.value)
    assert "more ids" not in str(refusal.value)


def test_the_same_tokens_by_other_rules_are_refused(tmp_path):
    save_language_tokenizer(tmp_path / "a")
    save_language_tokenizer(tmp_path / "pads", pad_token="<unk>")
    assert same_vocabulary(tmp_path / "a", tmp_path / "pads", 26, 26) == 26
    other = load_tokenizer(tmp_path / "a")
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    other.save_pretrained(tmp_path / "b")
    with pytest.raises(ModelError, match=r"by different rules \(pre_tokenizer\)"):
        same_vocabulary(tmp_path / "a", tmp_path / "b", 26, 26)


def test_a_declared_tokenizer_is_held_to_its_fingerprint(tmp_path):
    save_decoder(tmp_path)
    found = check_language_folder(tmp_path).tokenizer_sha256
    check_tokenizer_sha256("code", tmp_path, None)
    check_tokenizer_sha256("code", tmp_path, found)
    with pytest.raises(ModelError, match=f"teachers.code: .* fingerprint {found}.*is 00ff"):
        check_tokenizer_sha256("code", tmp_path, "00ff")


def test_dropout_replaces_what_the_family_has(tmp_path):
    save_decoder(tmp_path, "gpt2")
    rates = [
        {m.p for m in load_language_model(tmp_path, dropout=rate).modules() if hasattr(m, "p")}
        for rate in (None, 0.3)
    ]
    assert rates == [{0.1}, {0.3}]
