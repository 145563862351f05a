import logging

import pytest
import torch
from tiny_models import LABELS, WORDS, save_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BertModel, PreTrainedTokenizerFast

from distill.config import InitFrom, Student
from distill.errors import ConfigError, ModelError
from distill.models.load import load_classifier
from distill.models.sizes import solve
from distill.models.student import build_student, student_tokenizer
from distill.models.tokenizer import load_tokenizer


@pytest.fixture
def tokenizer_folder(tmp_path):
    save_tokenizer(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def texts():
    for index in range(400):
        yield f"{WORDS[index % 10]} {WORDS[index * 7 % 10]} filming plots{index % 13} notion"


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_the_seed_alone_decides_the_weights(tokenizer_folder):
    student = Student(layers=2, hidden=16)
    state = torch.get_rng_state()
    first = build_student(student, tokenizer_folder, LABELS, 12, seed=5)
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(9)
    assert same(first, build_student(student, tokenizer_folder, LABELS, 12, seed=5))
    assert not same(first, build_student(student, tokenizer_folder, LABELS, 12, seed=6))


def test_built_to_size_for_this_tokenizer_and_these_labels(tokenizer_folder):
    student = Student(size_mb=0.2, dropout=0.3)
    model = build_student(student, tokenizer_folder, LABELS, 12, seed=0)
    assert model.num_parameters() == solve(student, 29, 3, 12).num_params
    assert model.config.label2id == {"neg": 0, "neutral": 1, "pos": 2}
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.3}
    model(torch.full((1, 12), 28))  # the last token, in the last position
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, 13), 28))


def test_path_continues_from_the_weights(classifier_folder, tokenizer_folder):
    student = Student(path=str(classifier_folder), dropout=0.25)
    model = build_student(student, tokenizer_folder, LABELS, 12, seed=0)
    assert same(model, load_classifier(classifier_folder))
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.25}


def test_path_must_fit_tokens_labels_and_lengths(classifier_folder, encoder_folder, tmp_path):
    student = Student(path=str(classifier_folder))
    with pytest.raises(ModelError, match=r"student\.path .*'neg'.*\['x', 'y', 'z'\]"):
        build_student(student, classifier_folder, ["x", "y", "z"], 12, seed=0)
    with pytest.raises(ModelError, match=r"data\.max_length 25 .* 24 positions"):
        build_student(student, classifier_folder, LABELS, 25, seed=0)
    for change, size in [(["extra"], 30), (["extra", "more"], 31)]:
        tokenizer = load_tokenizer(classifier_folder)
        tokenizer.add_tokens(change)
        tokenizer.save_pretrained(tmp_path / "larger")
        with pytest.raises(ModelError, match=f"29 tokens.*has {size}"):
            build_student(student, tmp_path / "larger", LABELS, 12, seed=0)
    with pytest.raises(ModelError, match=r"student\.init_from"):
        build_student(Student(path=str(encoder_folder)), encoder_folder, LABELS, 12, seed=0)


def test_path_with_a_smaller_tokenizer_is_refused(classifier_folder, tmp_path):
    out = student_tokenizer(
        Student(vocab_size=64), classifier_folder, lambda: iter(["ab"]), tmp_path / "small"
    )
    size = len(load_tokenizer(out))
    assert size < 29
    with pytest.raises(ModelError, match=f"29 tokens.*has {size}"):
        build_student(Student(path=str(classifier_folder)), out, LABELS, 12, seed=0)


def test_init_from_keeps_embeddings_and_first_layers(encoder_folder):
    student = Student(init_from=InitFrom(path=str(encoder_folder), layers=1), dropout=0.0)
    model = build_student(student, encoder_folder, ["x", "y"], 12, seed=0)
    encoder = BertModel.from_pretrained(encoder_folder)
    ids = torch.tensor([[2, 6, 9, 3]])
    expected = encoder.eval()(ids, output_hidden_states=True).hidden_states[1]
    assert torch.equal(model.base_model(ids).last_hidden_state, expected)
    assert model(ids).logits.shape == (1, 2)
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.0}
    too_many = Student(init_from=InitFrom(path=str(encoder_folder), layers=4))
    with pytest.raises(ModelError, match=r"student\.init_from\.layers 4 .* 3 layers"):
        build_student(too_many, encoder_folder, LABELS, 12, seed=0)


def test_the_same_texts_give_the_same_tokens(tokenizer_folder, tmp_path):
    """The library's own WordPiece trainer does not: it iterates over randomly seeded maps."""
    lines = [f"w{i * i % 97} thing{i % 31} un{i % 7}able naïve" for i in range(3000)]
    outs = [tmp_path / f"out{index}" for index in range(4)]
    for out in outs:
        student_tokenizer(Student(vocab_size=150), tokenizer_folder, lambda: iter(lines), out)
    assert len({(out / "tokenizer.json").read_text() for out in outs}) == 1
    assert len(load_tokenizer(outs[0])) == 150


def test_retrained_tokenizer_reads_text_as_the_old_one_did(tokenizer_folder, tmp_path):
    out = student_tokenizer(Student(vocab_size=64), tokenizer_folder, texts, tmp_path / "out")
    tokenizer = load_tokenizer(out)
    assert len(tokenizer) <= 64
    assert tokenizer.tokenize("GOOD Filming") == tokenizer.tokenize("good filming")
    ids = tokenizer("good film", "bad plots3")
    assert tokenizer.decode(ids["input_ids"]) == "[CLS] good film [SEP] bad plots3 [SEP]"
    assert sorted(set(ids["token_type_ids"])) == [0, 1]
    # The tokens named special in training are none: text that spells them is split like other text.
    assert "##o" not in tokenizer.tokenize("a ##o")
    assert len(tokenizer.all_special_tokens) == 5


def test_few_texts_give_fewer_tokens_and_a_warning(tokenizer_folder, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        out = student_tokenizer(Student(vocab_size=5000), tokenizer_folder, texts, tmp_path / "out")
    size = len(load_tokenizer(out))
    assert size < 5000
    assert f"{size} tokens, not the 5000" in caplog.text


def test_more_characters_than_tokens_is_refused(tokenizer_folder, tmp_path):
    def many_characters():
        yield " ".join(chr(0x3B1 + i) + chr(0x431 + i) for i in range(24))

    with pytest.raises(ConfigError, match=r"student\.vocab_size 64 is below the \d+"):
        student_tokenizer(Student(vocab_size=64), tokenizer_folder, many_characters, tmp_path / "o")


def test_unigram_cannot_be_retrained(tokenizer_folder, tmp_path):
    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=["<unk>"], unk_token="<unk>")
    unigram.train_from_iterator(texts(), trainer)
    PreTrainedTokenizerFast(tokenizer_object=unigram, unk_token="<unk>").save_pretrained(
        tmp_path / "unigram"
    )
    student = Student(vocab_size=64, tokenizer=str(tmp_path / "unigram"))
    with pytest.raises(ConfigError, match=r"Unigram .*student\.tokenizer"):
        student_tokenizer(student, tokenizer_folder, texts, tmp_path / "out")


def test_which_tokenizer(classifier_folder, tokenizer_folder, tmp_path):
    other = load_tokenizer(tokenizer_folder)
    other.add_tokens(["extra"])
    other.save_pretrained(tmp_path / "other")

    def size(student: Student) -> int:
        return len(
            load_tokenizer(student_tokenizer(student, tokenizer_folder, texts, tmp_path / "out"))
        )

    assert size(Student()) == 29
    assert size(Student(tokenizer=str(tmp_path / "other"))) == 30
    path = str(classifier_folder)
    assert size(Student(path=path, tokenizer=path)) == 29
    with pytest.raises(ConfigError, match=r"student\.tokenizer .*student\.path"):
        size(Student(path=path, tokenizer=str(tmp_path / "other")))
