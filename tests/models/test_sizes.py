import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from distill.config import Student
from distill.errors import ConfigError
from distill.models.sizes import Dimensions, num_params, solve


def real(d: Dimensions, vocab_size: int, num_labels: int, max_positions: int):
    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=d.hidden,
        num_hidden_layers=d.layers,
        num_attention_heads=d.heads,
        intermediate_size=d.ffn,
        max_position_embeddings=max_positions,
        num_labels=num_labels,
    )
    return BertForSequenceClassification(config)


@pytest.mark.parametrize(
    ("student", "vocab_size", "num_labels", "max_positions"),
    [
        (Student(), 90, 2, 16),
        (Student(layers=12, hidden=24, heads=3, ffn=40), 100, 7, 33),
        (Student(size_mb=0.3), 500, 3, 20),
        (Student(size_mb=1.0, layers=5), 101, 4, 8),
        (Student(size_mb=1.0, hidden=40), 333, 5, 64),
        (Student(size_mb=2.0, heads=5, ffn=16), 1000, 2, 128),
    ],
)
def test_counts_and_bytes_are_those_of_the_real_file(
    tmp_path, student, vocab_size, num_labels, max_positions
):
    found = solve(student, vocab_size, num_labels, max_positions)
    model = real(found, vocab_size, num_labels, max_positions)
    assert found.num_params == sum(p.numel() for p in model.parameters())
    model.save_pretrained(tmp_path)
    assert round(found.size_mb * 1e6) == (tmp_path / "model.safetensors").stat().st_size
    if student.size_mb is not None:
        assert found.size_mb <= student.size_mb
    for name in ("layers", "hidden", "heads", "ffn"):
        assert getattr(student, name) in (None, getattr(found, name))


def test_closed_form_at_full_size():
    """BERT base is published as 110 M parameters; counted without allocating it."""
    with torch.device("meta"):
        model = BertForSequenceClassification(BertConfig())
    count = num_params(
        layers=12, hidden=768, ffn=3072, vocab_size=30522, num_labels=2, max_positions=512
    )
    assert count == model.num_parameters() == 109_483_778


def test_the_next_rung_would_not_fit():
    for size_mb in (0.5, 3.0, 14.0, 60.0):
        found = solve(Student(size_mb=size_mb), 4000, 3, 64)
        hidden = found.hidden + 8
        layers = max(2, round(hidden / 64))
        larger = solve(Student(hidden=hidden, layers=layers), 4000, 3, 64)
        assert found.size_mb <= size_mb < larger.size_mb


def test_a_size_that_is_exactly_met_is_taken():
    exact = solve(Student(size_mb=3.0), 4000, 3, 64)
    assert solve(Student(size_mb=exact.size_mb), 4000, 3, 64) == exact
    below = solve(Student(size_mb=exact.size_mb - 1e-6), 4000, 3, 64)
    assert (below.hidden, below.ffn) == (exact.hidden, exact.ffn - 8)


def test_impossible_size_names_the_smallest_possible():
    with pytest.raises(ConfigError, match=r"student\.size_mb 0\.1 .*student\.vocab_size") as error:
        solve(Student(size_mb=0.1), 30522, 2, 128)
    smallest = float(str(error.value).split(" MB")[0].split()[-1])
    assert solve(Student(size_mb=smallest + 1e-3), 30522, 2, 128).hidden == 8


def test_heads_must_divide_hidden():
    with pytest.raises(ConfigError, match=r"student\.heads 7 must divide .* 128"):
        solve(Student(heads=7), 100, 2, 16)
    with pytest.raises(ConfigError, match=r"student\.heads 3 must divide .* 64"):
        solve(Student(hidden=64, heads=3, size_mb=2), 100, 2, 16)
    assert solve(Student(size_mb=2, heads=3), 100, 2, 16).hidden % 3 == 0


def test_scales_are_the_bert_miniatures():
    assert solve(Student(), 99, 2, 16) == solve(Student(scale="tiny"), 99, 2, 16)
    small = solve(Student(scale="small"), 99, 2, 16)
    assert (small.layers, small.hidden, small.heads, small.ffn) == (4, 512, 16, 2048)
