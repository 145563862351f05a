import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import LABELS, save_tokenizer, tiny_config
from transformers import (
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from distill.errors import ModelError
from distill.models.load import (
    check_folder,
    load_base_for_classification,
    load_classifier,
    weights_fingerprint,
)

IDS = torch.tensor([[2, 5, 6, 7, 3]])


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def as_pickle(folder: Path) -> None:
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()


def test_headers_say_what_the_loaded_model_is(classifier_folder):
    info = check_folder(classifier_folder)
    model = AutoModelForSequenceClassification.from_pretrained(classifier_folder)
    assert info.num_params == model.num_parameters()
    assert info.label_names == LABELS and info.has_classifier_head
    assert (info.vocab_size, info.max_positions, info.hidden) == (29, 24, 16)
    assert (info.model_type, info.num_layers) == ("bert", 2)


def test_shards_count_like_one_file(classifier_folder, tmp_path):
    model = BertForSequenceClassification.from_pretrained(classifier_folder)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="8KB")
    save_tokenizer(tmp_path / "sharded")
    shards = sorted((tmp_path / "sharded").glob("*.safetensors"))
    assert len(shards) > 1
    assert check_folder(tmp_path / "sharded") == check_folder(classifier_folder)
    shards[1].unlink()
    with pytest.raises(ModelError, match=f"no {shards[1].name}"):
        check_folder(tmp_path / "sharded")


def test_roberta_cannot_use_its_first_positions(tmp_path):
    config = RobertaConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=14,
        pad_token_id=1,
    )
    model = RobertaForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    longest = check_folder(tmp_path).max_positions
    model(input_ids=torch.full((1, longest), 5))  # the promise: this many tokens work
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, longest + 1), 5))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_load_classifier_has_the_folders_weights(classifier_folder, dtype):
    model = load_classifier(classifier_folder, dtype=dtype)
    stored = load_file(classifier_folder / "model.safetensors")
    assert not model.training
    assert model.state_dict().keys() == stored.keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, stored[name].to(getattr(torch, dtype)))


def test_pickles_only_when_allowed(classifier_folder):
    expected = load_classifier(classifier_folder)(IDS).logits
    info = check_folder(classifier_folder)
    as_pickle(classifier_folder)
    for refused in (check_folder, load_classifier):
        with pytest.raises(ModelError, match=r"pytorch_model.bin.*allow_pickle: true"):
            refused(classifier_folder)
    assert check_folder(classifier_folder, allow_pickle=True) == info
    assert torch.equal(load_classifier(classifier_folder, allow_pickle=True)(IDS).logits, expected)


def test_pickle_that_runs_code_is_not_run(classifier_folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "owned",))

    (classifier_folder / "model.safetensors").unlink()
    torch.save({"x": Evil()}, classifier_folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be read as weights"):
        check_folder(classifier_folder, allow_pickle=True)
    assert not (tmp_path / "owned").exists()


def test_missing_pieces_are_named(classifier_folder, tmp_path):
    with pytest.raises(ModelError, match=r"no model folder .*nowhere"):
        check_folder(tmp_path / "nowhere")
    for name, message in [
        ("tokenizer.json", "no tokenizer files"),
        ("model.safetensors", r"no model\.safetensors"),
        ("config.json", r"no config\.json"),
    ]:
        (classifier_folder / name).unlink()
        with pytest.raises(ModelError, match=message):
            check_folder(classifier_folder)


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_a_cut_short_file_is_refused(classifier_folder, keep):
    weights = classifier_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"model.safetensors is truncated.*copy it again"):
        check_folder(classifier_folder)


def test_broken_config_and_tokenizer_are_refused(classifier_folder):
    (classifier_folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="tokenizer cannot be read"):
        check_folder(classifier_folder)
    edit_config(classifier_folder, model_type="mine", auto_map={"AutoConfig": "mine.Config"})
    with pytest.raises(ModelError, match=r"config\.json cannot be used"):
        check_folder(classifier_folder)


def test_tokenizer_larger_than_the_vocabulary(tmp_path):
    BertForSequenceClassification(tiny_config(vocab_size=20)).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    with pytest.raises(ModelError, match="29 tokens, the model's vocabulary only 20"):
        check_folder(tmp_path)


def test_labels_must_fit_the_head(classifier_folder):
    edit_config(classifier_folder, id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1})
    with pytest.raises(ModelError, match="id2label names 2 labels, but the head has 3"):
        check_folder(classifier_folder)
    edit_config(classifier_folder, id2label={"0": "a", "1": "b", "5": "c"})
    with pytest.raises(ModelError, match=r"got \[0, 1, 5\]"):
        check_folder(classifier_folder)


def test_no_head_is_an_error_and_never_a_random_head(encoder_folder, tmp_path):
    assert not check_folder(encoder_folder).has_classifier_head
    with pytest.raises(ModelError, match=r"no sequence-classification head.*experts\.base"):
        load_classifier(encoder_folder)
    # A token classifier's head bears the same name.
    BertForTokenClassification(tiny_config()).save_pretrained(tmp_path / "tags")
    save_tokenizer(tmp_path / "tags")
    with pytest.raises(ModelError, match="no sequence-classification head"):
        load_classifier(tmp_path / "tags")


def test_missing_and_mismatched_weights_are_errors(classifier_folder):
    weights = classifier_folder / "model.safetensors"
    tensors = load_file(weights)
    key = "bert.encoder.layer.1.output.dense.bias"
    save_file({k: v for k, v in tensors.items() if k != key}, weights, {"format": "pt"})
    with pytest.raises(ModelError, match=f"lacks 1 weights.*{key}"):
        load_classifier(classifier_folder)
    save_file(tensors | {key: torch.zeros(7)}, weights, {"format": "pt"})
    with pytest.raises(ModelError, match="do not fit"):
        load_classifier(classifier_folder)


def test_base_has_the_encoder_and_a_head_from_the_seed(encoder_folder):
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    first = load_base_for_classification(encoder_folder, LABELS, seed=1, layers=2)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate() and (states[2] == np.random.get_state()[1]).all()
    torch.rand(3)  # another global state
    again = load_base_for_classification(encoder_folder, LABELS, seed=1, layers=2)
    other = load_base_for_classification(encoder_folder, LABELS, seed=2, layers=2)

    encoder = BertModel.from_pretrained(encoder_folder)
    kept = {k: v for k, v in encoder.state_dict().items() if "layer.2." not in k}
    assert first.base_model.state_dict().keys() == kept.keys()
    for name, tensor in kept.items():
        assert torch.equal(first.base_model.state_dict()[name], tensor)
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert first.config.num_hidden_layers == 2
    assert first.config.id2label == dict(enumerate(LABELS))


def test_base_ignores_a_head_that_is_there(classifier_folder):
    old = load_classifier(classifier_folder)
    new = load_base_for_classification(classifier_folder, LABELS, seed=1)
    assert not torch.equal(old.classifier.weight, new.classifier.weight)
    assert torch.equal(old.bert.pooler.dense.weight, new.bert.pooler.dense.weight)


def test_base_lacking_encoder_weights_is_an_error(encoder_folder):
    weights = encoder_folder / "model.safetensors"
    tensors = load_file(weights)
    del tensors["encoder.layer.0.output.dense.weight"]
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights.*layer\.0\.output\.dense\.weight"):
        load_base_for_classification(encoder_folder, LABELS, seed=0)


def test_fingerprint_follows_content_not_place(classifier_folder, tmp_path):
    before = weights_fingerprint(classifier_folder)
    shutil.copytree(classifier_folder, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("notes")
    assert weights_fingerprint(tmp_path / "copy") == before
    weights = tmp_path / "copy" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert weights_fingerprint(tmp_path / "copy") != before
    edit_config(classifier_folder, hidden_act="relu")
    assert weights_fingerprint(classifier_folder) != before
