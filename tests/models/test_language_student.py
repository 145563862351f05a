"""Language-model students: sizes, kept layers, low-rank updates, freezing."""

import pytest
import torch
from tiny_models import NUM_LANGUAGE_TOKENS, decoder, save_decoder, save_language_tokenizer
from transformers import AutoModelForCausalLM

from distill.config import InitFrom, Lora, Student
from distill.errors import ConfigError, ModelError
from distill.models.decoder import base_of, head_of, layers_of
from distill.models.freeze import train_top_layers
from distill.models.language import load_language_model
from distill.models.language_sizes import solve_language
from distill.models.language_student import (
    build_language_student,
    kept_layers,
    merged,
    with_lora,
)

IDS = torch.arange(2, 18).unsqueeze(0)
FAMILIES = ("llama", "qwen2", "qwen3", "mixtral", "olmoe", "qwen3_moe", "smollm3", "gpt2", "gemma2")


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.fixture
def folder(tmp_path):
    save_decoder(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    "student",
    [
        Student(),
        Student(size_mb=0.5),
        Student(size_mb=2, kv_heads=1),
        Student(size_mb=1, hidden=64),
        Student(layers=3, hidden=48, heads=4, kv_heads=2, ffn=100),
    ],
)
def test_sizes_are_those_of_the_file(student, tmp_path):
    save_language_tokenizer(tmp_path)
    model = build_language_student(student, tmp_path, 32, seed=0)
    size = solve_language(student, NUM_LANGUAGE_TOKENS)
    assert model.num_parameters() == size.num_params
    model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved/model.safetensors").stat().st_size == round(size.size_mb * 1e6)
    if student.size_mb is not None:
        assert 0.75 * student.size_mb < size.size_mb <= student.size_mb
    assert model(IDS).logits.shape[-1] == NUM_LANGUAGE_TOKENS


def test_a_size_below_the_smallest_is_refused():
    with pytest.raises(ConfigError, match=r"size_mb 1 is too small: .* 49152 tokens .* 1\.5"):
        solve_language(Student(size_mb=1), 49152)
    with pytest.raises(ConfigError, match=r"heads 4 must divide .* 20, into heads of an even"):
        solve_language(Student(hidden=20, heads=4), 100)
    with pytest.raises(ConfigError, match=r"kv_heads 3 must divide student\.heads, 4"):
        solve_language(Student(hidden=128, heads=4, kv_heads=3), 100)


def test_the_seed_alone_decides_the_weights(folder):
    state = torch.get_rng_state()
    for student in (
        Student(hidden=16),
        Student(path=str(folder), lora=Lora(rank=2)),
        Student(init_from=InitFrom(path=str(folder), layers=2), lora=Lora(rank=2)),
    ):
        first = build_language_student(student, folder, 32, seed=5)
        torch.rand(3)
        assert same(first, build_language_student(student, folder, 32, seed=5))
        assert not same(first, build_language_student(student, folder, 32, seed=6))
        torch.set_rng_state(state)
    build_language_student(Student(path=str(folder)), folder, 32, seed=5)
    build_language_student(Student(init_from=InitFrom(path=str(folder), layers=2)), folder, 32, 5)
    assert torch.equal(state, torch.get_rng_state())


def test_layers_are_kept_at_even_distances():
    assert kept_layers(3, 8, "first") == [0, 1, 2]
    assert kept_layers(1, 8, "even") == [0]
    assert kept_layers(2, 30, "even") == [0, 29]
    assert kept_layers(4, 30, "even") == [0, 10, 19, 29]
    for num in range(1, 9):
        kept = kept_layers(num, 8, "even")
        assert sorted(set(kept)) == kept
        assert len(kept) == num


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("keep", ["first", "even"])
def test_kept_layers_do_what_they_did(family, keep, tmp_path):
    """Against the whole model, of which the other layers hand through what they are given."""
    whole = save_decoder(tmp_path, family)
    student = Student(init_from=InitFrom(path=str(tmp_path), layers=3, keep=keep))
    model = build_language_student(student, tmp_path, 32, seed=0)
    kept = kept_layers(3, 4, keep)
    (left_out,) = set(range(4)) - set(kept)
    layer = layers_of(whole)[1][left_out]
    layer.forward = lambda hidden, *args, **kwargs: hidden
    assert torch.equal(model(IDS).logits, whole(IDS).logits)
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert len(layers_of(again)[1]) == 3
    assert torch.equal(again(IDS).logits, model(IDS).logits)


def test_layers_that_depend_on_their_number_are_refused(tmp_path):
    save_decoder(tmp_path, "gpt2", scale_attn_by_inverse_layer_idx=True)
    student = Student(init_from=InitFrom(path=str(tmp_path), layers=2, keep="even"))
    with pytest.raises(ModelError, match=r"scale_attn_by_inverse_layer_idx.*keep: first"):
        build_language_student(student, tmp_path, 32, seed=0)


def test_what_does_not_fit_is_refused(folder, tmp_path):
    def refused(error, match, max_length=32, tokenizer=folder, **student):
        with pytest.raises(error, match=match):
            build_language_student(Student(**student), tokenizer, max_length, seed=0)

    start = InitFrom(path=str(folder), layers=5)
    refused(ModelError, r"init_from\.layers 5 is more than the 4 layers", init_from=start)
    refused(ModelError, r"max_length 33 .* 32 positions", max_length=33, path=str(folder))
    refused(ConfigError, r"student\.lora .* starts without any", lora=Lora())
    refused(ConfigError, r"student\.family is mlp", family="mlp")
    refused(ConfigError, r"lora\.targets 'q' .*q_proj", path=str(folder), lora=Lora(targets=("q",)))
    head = Lora(targets=("lm_head",))
    refused(ConfigError, r"lora\.targets 'lm_head' is no", path=str(folder), lora=head)
    save_language_tokenizer(tmp_path / "more", ("one",))
    save_language_tokenizer(tmp_path / "other", eos_token="<end>")
    refused(ModelError, r"26 tokens.*has 27", tokenizer=tmp_path / "more", path=str(folder))
    save_decoder(tmp_path / "padded", vocab_size=32)
    padded = str(tmp_path / "padded")
    refused(ModelError, r"different tokens from", tokenizer=tmp_path / "more", path=padded)
    assert build_language_student(Student(path=padded), padded, 32, 0).config.vocab_size == 32


def loss_of(model):
    return model(IDS, labels=IDS).loss


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_low_rank_updates_alone_are_trained_and_merged_into_a_copy(family, tmp_path):
    whole = save_decoder(tmp_path, family)
    student = Student(path=str(tmp_path), lora=Lora(rank=2, alpha=8))
    model = build_language_student(student, tmp_path, 32, seed=1)
    assert torch.equal(model(IDS).logits, whole(IDS).logits)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    optimizer = torch.optim.SGD(trained.values(), lr=0.1)
    for _ in range(2):
        loss_of(model).backward()
        optimizer.step()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    plain = merged(model)
    assert type(plain) is type(whole)
    torch.testing.assert_close(plain(IDS).logits, model(IDS).logits, atol=1e-3, rtol=1e-3)
    assert not torch.equal(plain(IDS).logits, whole(IDS).logits)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert plain.state_dict().keys() == whole.state_dict().keys()
    assert merged(plain) is plain
    hidden = base_of(model)(IDS).last_hidden_state  # the updates are in it
    assert torch.equal(head_of(model)(hidden), model(IDS).logits)


@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
def test_checkpointing_changes_no_gradient(lora, folder):
    gradients = []
    for is_on in (False, True):
        student = Student(path=str(folder), lora=lora)
        model = build_language_student(student, folder, 32, 0, gradient_checkpointing=is_on)
        model.train()
        assert bool(base_of(model).is_activation_checkpointing) is is_on
        loss_of(model).backward()
        with torch.inference_mode():
            assert model.eval()(IDS).logits.isfinite().all()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    assert all(torch.equal(gradients[1][name], g) for name, g in gradients[0].items())


def test_padding_that_ends_texts_is_learnt(tmp_path):
    save_decoder(tmp_path, pad_token_id=0)
    model = build_language_student(Student(path=str(tmp_path)), tmp_path, 32, seed=0)
    ids = torch.tensor([[0, 5, 7]])
    base_of(model)(ids).last_hidden_state.square().sum().backward()
    assert model.get_input_embeddings().weight.grad[0].abs().sum() > 0


def test_the_family_has_dropout_only_where_it_is_given(folder):
    rates = [Student(hidden=16), Student(hidden=16, dropout=0.2), Student(path=str(folder))]
    rates.append(Student(path=str(folder), dropout=0.1))
    built = [build_language_student(s, folder, 32, seed=0).config.attention_dropout for s in rates]
    assert built == [0.0, 0.2, 0.0, 0.1]


def trained_names(model, n):
    train_top_layers(model, n)
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
def test_top_layers_train_and_a_tied_head_stays(family):
    model = decoder(family)
    base, (name, _) = base_of(model), layers_of(model)
    prefix = f"{model.base_model_prefix}."
    norm = {f"{prefix}{n}" for n, _ in base.named_parameters() if n.startswith(("norm", "ln_f"))}
    head = set() if family != "qwen2" else {"lm_head.weight"}  # untied
    top = {n for n, _ in model.named_parameters() if n.startswith(f"{prefix}{name}.3.")}
    assert trained_names(model, 0) == norm | head
    assert trained_names(model, 1) == norm | head | top
    assert trained_names(model, None) == {n for n, _ in model.named_parameters()}
    with pytest.raises(ModelError, match="5 layers requested of a model that has 4"):
        train_top_layers(model, 5)


def test_merging_keeps_the_dtype(folder):
    model = with_lora(load_language_model(folder, "bfloat16"), Lora(rank=2), seed=0)
    assert {p.dtype for p in merged(model).parameters()} == {torch.bfloat16}
