"""``student.size_mb`` is a cap that is used, and a begun fit keeps its dimensions."""

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from distill.config import Student
from distill.errors import CheckpointError, ConfigError
from distill.models.features import FeatureSpace
from distill.models.language_sizes import solve_language
from distill.models.shape import FILE, fixed
from distill.models.sizes import Dimensions, solve, solve_features

VOCABULARIES = (90, 500, 2000, 8000, 30522, 50000)


def caps(seed: int, num: int, smallest: float) -> list[float]:
    """MB, spread over the orders of magnitude above the smallest student."""
    draw = random.Random(seed)
    return [round(smallest * 10 ** draw.uniform(0.1, 2.5), 4) for _ in range(num)]


def used_or_explained(found: Dimensions, cap: float) -> None:
    """95 % and more of the cap; of widths of a few numbers less, and then it is said."""
    assert found.size_mb <= cap
    if found.size_mb < 0.95 * cap:
        assert found.hidden < 20 and found.next_mb is not None and found.next_mb > cap
        assert f"{found.next_mb:.3f} MB" in found.unused
    else:
        assert found.next_mb is None and found.unused == ""


@pytest.mark.parametrize("vocab_size", VOCABULARIES)
@pytest.mark.parametrize(("num_labels", "max_positions"), [(2, 128), (150, 32)])
def test_a_classifier_uses_its_cap(vocab_size: int, num_labels: int, max_positions: int) -> None:
    smallest = (vocab_size + max_positions) * 8 * 4e-6 + 0.02
    for cap in caps(vocab_size + num_labels, 12, smallest):
        found = solve(Student(size_mb=cap), vocab_size, num_labels, max_positions)
        used_or_explained(found, cap)
        assert 1 <= found.ffn / found.hidden <= 16
        assert found.hidden % found.heads == 0


@pytest.mark.parametrize("vocab_size", VOCABULARIES)
def test_a_language_model_uses_its_cap(vocab_size: int) -> None:
    for cap in caps(vocab_size, 12, vocab_size * 8 * 4e-6 + 0.01):
        found = solve_language(Student(size_mb=cap), vocab_size)
        used_or_explained(found, cap)
        assert found.hidden % (2 * found.heads) == 0


@pytest.mark.parametrize("num_features", [4, 64, 784])
def test_a_student_of_features_uses_its_cap(num_features: int) -> None:
    space = FeatureSpace(("x",), (0.0,) * num_features, (1.0,) * num_features)
    for cap in caps(num_features, 12, num_features * 8 * 4e-6 + 0.01):
        found = solve_features(Student(size_mb=cap), space, 10)
        assert found.size_mb <= cap and (found.size_mb >= 0.95 * cap or found.hidden < 20)


def test_the_example_that_used_three_fifths() -> None:
    first = solve(Student(size_mb=0.335), 2000, 2, 64, by_first_rule=True)
    assert (first.hidden, first.ffn) == (24, 96) and first.size_mb < 0.85 * 0.335
    assert solve(Student(size_mb=0.335), 2000, 2, 64).size_mb > 0.95 * 0.335


def test_given_dimensions_are_kept() -> None:
    assert solve(Student(size_mb=1.0, hidden=40), 333, 5, 64).hidden == 40
    assert solve(Student(size_mb=1.0, layers=5), 333, 5, 64).layers == 5
    by_ffn = solve(Student(size_mb=1.0, ffn=64), 333, 5, 64)
    assert by_ffn.ffn == 64 and by_ffn.size_mb > 0.95
    assert solve(Student(size_mb=2.0, heads=3), 333, 5, 64).hidden % 3 == 0
    assert solve_language(Student(size_mb=2, heads=4, kv_heads=2), 500).kv_heads == 2


def test_widths_are_multiples_of_eight_where_that_is_enough() -> None:
    for cap in (14.0, 60.0, 200.0):
        found = solve(Student(size_mb=cap), 4000, 3, 64)
        assert found.hidden % 8 == 0 and found.ffn % 8 == 0
        assert 0.5 <= found.ffn / (4 * found.hidden) <= 2


@pytest.mark.parametrize("size_mb", [3000.0, 1e6])
@pytest.mark.parametrize("given", [{}, {"hidden": 8}, {"layers": 1}, {"ffn": 16}])
def test_a_cap_above_the_largest_takes_it(size_mb: float, given: dict[str, int]) -> None:
    found = solve(Student(size_mb=size_mb, **given), 1000, 2, 128)
    largest = solve(Student(size_mb=1e4, **given), 1000, 2, 128)
    assert found == largest and found.hidden == given.get("hidden", 1024)
    assert found.ffn == given.get("ffn", 16 * found.hidden) and found.next_mb is None
    of_language = solve_language(Student(size_mb=size_mb, **given), 1000)
    assert of_language == solve_language(Student(size_mb=1e5, **given), 1000)


def test_a_cap_below_the_smallest_names_it() -> None:
    with pytest.raises(ConfigError, match=r"smallest student takes 0\.993 MB"):
        solve(Student(size_mb=0.9), 30522, 2, 128)
    with pytest.raises(ConfigError, match=r"smallest student takes 1\.5\d\d MB"):
        solve_language(Student(size_mb=1), 49152)


# ---- begun fits ------------------------------------------------------------------------------

CAPPED = Student(size_mb=0.335)


def shape(student: Student) -> tuple[int | None, ...]:
    return student.layers, student.hidden, student.heads, student.ffn


def solved(by_first_rule: bool) -> Dimensions:
    return solve(CAPPED, 2000, 2, 64, by_first_rule)


def test_a_new_fit_records_its_shape_and_a_resumed_one_reads_it(tmp_path: Path) -> None:
    new = fixed(CAPPED, tmp_path / "fit", solved)
    assert shape(new) == (2, 28, 1, 144) and new.size_mb is None

    def must_not_be_asked(by_first_rule: bool) -> Dimensions:
        raise AssertionError

    assert fixed(CAPPED, tmp_path / "fit", must_not_be_asked) == new


@pytest.mark.parametrize("left", ["checkpoint", "best"])
def test_a_folder_that_the_first_rule_began_keeps_its_shape(left: str, tmp_path: Path) -> None:
    folder = tmp_path / "fit"
    if left == "checkpoint":
        (folder / "checkpoints" / "step-00000010").mkdir(parents=True)
    else:
        folder.mkdir()
        save_file({"a": torch.zeros(1)}, folder / "best.safetensors")
    assert shape(fixed(CAPPED, folder, solved)) == (2, 24, 1, 96)
    assert json.loads((folder / FILE).read_text())["ffn"] == 96


def test_a_student_of_other_dimensions_leaves_no_file(tmp_path: Path) -> None:
    student = Student(layers=2, hidden=32)
    assert fixed(student, tmp_path, solved) is student and not list(tmp_path.iterdir())


def test_a_broken_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("[1]")
    with pytest.raises(CheckpointError, match="does not hold the dimensions"):
        fixed(CAPPED, tmp_path, solved)
