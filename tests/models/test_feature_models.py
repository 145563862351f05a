"""Models of features: exact sizes, raw features in, and what they cannot be."""

from pathlib import Path

import pytest
import torch

from distill.aggregation import Attention, UniformMean
from distill.config import Student
from distill.errors import ConfigError, ModelError
from distill.evaluation.efficiency import folder_size_mb, measure
from distill.models.features import FeatureSpace, feature_space
from distill.models.load import check_folder, load_classifier
from distill.models.sizes import solve_features
from distill.models.student import build_feature_student, build_student
from distill.module import DistillModule
from distill.objectives import ForwardKL
from distill.records import Batch, Knobs, TeacherAnswers
from distill.student.export import ModelCard, export

LABELS = ("a", "b", "c")
TABLE = feature_space("wxyz", [1000.0, -3.0, 0.5, 2.0], [10.0, 0.0, 2.0, 1e-3])
IMAGE = feature_space(["pixels"], [3.0] * 40, [2.0] * 40, (4, 5, 2))
STUDENTS = [
    (Student(), TABLE),
    (Student(family="mlp", layers=3, hidden=17), IMAGE),
    (Student(family="cnn", layers=3, hidden=9), IMAGE),
    (Student(size_mb=0.1), TABLE),
    (Student(family="cnn", size_mb=0.2, layers=1), IMAGE),
    (Student(size_mb=0.05, hidden=40), IMAGE),
]


def raw(space: FeatureSpace, num_rows: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    z_BD = torch.randn(num_rows, space.num, generator=generator)
    return z_BD * torch.tensor(space.scale) + torch.tensor(space.mean)


@pytest.mark.parametrize(("student", "space"), STUDENTS)
def test_counts_and_bytes_are_those_of_the_real_file(
    tmp_path: Path, student: Student, space: FeatureSpace
) -> None:
    size = solve_features(student, space, len(LABELS))
    model = build_feature_student(student, space, LABELS, seed=0)
    model.save_pretrained(tmp_path)
    num_params = sum(p.numel() for p in model.parameters())
    assert size.num_params == num_params == check_folder(tmp_path).num_params
    assert size.size_mb == folder_size_mb(tmp_path) == measure(model, 1, num_runs=2).size_mb
    if student.size_mb is not None:
        assert size.size_mb <= student.size_mb
        larger = {"layers": size.layers + 1} if student.hidden else {"hidden": size.hidden + 8}
        grown = Student.model_validate(
            {"family": size.family, "layers": size.layers, "hidden": size.hidden} | larger
        )
        assert solve_features(grown, space, len(LABELS)).size_mb > student.size_mb


@pytest.mark.parametrize("family", ["mlp", "cnn"])
def test_the_export_takes_raw_features(tmp_path: Path, family: str) -> None:
    student = Student.model_validate({"family": family})
    model = build_feature_student(student, IMAGE, LABELS, seed=1)
    export(model, "", tmp_path / "out", ModelCard(name="digits", teachers=("forest",)))
    loaded = load_classifier(tmp_path / "out")
    rows_BD = raw(IMAGE)
    want_BV = model(features=rows_BD).logits
    assert torch.equal(loaded(features=rows_BD).logits, want_BV)
    standardised = (rows_BD - 3) / 2
    plain = build_feature_student(
        student, feature_space(["pixels"], [0.0] * 40, [1.0] * 40, (4, 5, 2)), LABELS, seed=1
    )
    torch.testing.assert_close(plain(features=standardised).logits, want_BV)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "import distill.models.features" in card and "40 numbers (pixels" in card


def test_a_cnn_reads_images_row_by_row_with_channels_last() -> None:
    """Shifting an image inside a wide margin of zeros leaves the pooled answer as it is."""
    space = feature_space(["pixels"], [0.0] * 3 * 16 * 16, [1.0] * 3 * 16 * 16, (16, 16, 3))
    student = Student(family="cnn", layers=1, hidden=8)
    model = build_feature_student(student, space, LABELS, seed=0)
    stamp = torch.randn(4, 4, 3, generator=torch.Generator().manual_seed(0))
    images = torch.zeros(2, 16, 16, 3)
    images[0, 4:8, 4:8], images[1, 8:12, 6:10] = stamp, stamp  # even shifts: pooling is by 2
    first, second = model(features=images.flatten(1)).logits
    torch.testing.assert_close(first, second)


def test_bfloat16_keeps_the_standardisation(tmp_path: Path) -> None:
    build_feature_student(Student(), TABLE, LABELS, seed=0).save_pretrained(tmp_path)
    served = load_classifier(tmp_path, dtype="bfloat16")
    assert served.get_buffer("feature_mean").tolist() == list(TABLE.mean)
    exact = load_classifier(tmp_path)(features=raw(TABLE)).logits
    torch.testing.assert_close(served(features=raw(TABLE)).logits.float(), exact, rtol=0, atol=0.02)


def test_the_seed_alone_decides_the_weights() -> None:
    def weights(seed: int) -> torch.Tensor:
        return build_feature_student(Student(), TABLE, LABELS, seed).get_parameter(
            "layers.0.weight"
        )

    torch.manual_seed(123)
    first, state = weights(0), torch.get_rng_state()
    assert torch.equal(first, weights(0)) and not torch.equal(first, weights(1))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("family", ["mlp", "cnn"])
def test_gradients_against_finite_differences(family: str) -> None:
    """Through the module of the loop, under the mean of two teachers."""
    student = build_feature_student(
        Student.model_validate({"family": family, "hidden": 8, "dropout": 0}), IMAGE, LABELS, 0
    )
    module = DistillModule(student, ForwardKL(), UniformMean(), ("p", "q"), 3).eval()
    batch, answers = six_rows()
    loss = module(batch, answers, Knobs(2.0, 0.7)).loss
    loss.backward()
    weight = student.get_parameter("layers.0.weight")
    assert weight.grad is not None
    direction = weight.grad / weight.grad.norm()
    step = 1e-2
    with torch.no_grad():
        sides = []
        for sign in (1, -1):
            weight += sign * step * direction
            sides.append(module(batch, answers, Knobs(2.0, 0.7)).loss)
            weight -= sign * step * direction
    slope = (sides[0] - sides[1]) / (2 * step)
    assert float(slope) == pytest.approx(float(weight.grad.norm()), rel=0.05)


def test_attention_weighs_teachers_by_the_hidden_state() -> None:
    student = build_feature_student(Student(family="cnn", hidden=8), IMAGE, LABELS, 0)
    module = DistillModule(student, ForwardKL(), Attention(dropout=0), ("p", "q"), 3)
    batch, answers = six_rows()
    assert module.router is not None
    for param in module.router.parameters():  # at the start only the last layer has a gradient
        torch.nn.init.normal_(param)
    module(batch, answers, Knobs(2.0, 0.7)).loss.backward()
    assert all(p.grad is not None and p.grad.norm() > 0 for p in module.router.parameters())


def six_rows() -> tuple[Batch, TeacherAnswers]:
    batch = Batch(
        rows_B=raw(IMAGE).numpy()[:, 0],
        labels_B=torch.tensor([0, 1, 2, 0, 1, 2]),
        domains_B=torch.full((6,), -1),
        valid_B=torch.ones(6, dtype=torch.bool),
        num_valid=6,
        num_labelled=6,
        features_BD=raw(IMAGE),
    )
    generator = torch.Generator().manual_seed(1)
    answers = TeacherAnswers(
        torch.randn(2, 6, 3, generator=generator), torch.ones(2, 6, dtype=torch.bool)
    )
    return batch, answers


@pytest.mark.parametrize(
    ("student", "space", "message"),
    [
        (Student(family="cnn"), TABLE, r"family is cnn: set data\.image"),
        (Student(family="transformer"), TABLE, "family is transformer, but the data is features"),
        (Student(heads=2), TABLE, r"student\.heads applies only to students that read text"),
        (Student(scale="tiny"), TABLE, r"student\.scale applies only to students that read text"),
        (Student(size_mb=1e-4), TABLE, "too small: with 4 features the smallest mlp takes"),
    ],
)
def test_what_no_student_of_features_has(student, space, message) -> None:
    with pytest.raises(ConfigError, match=message):
        solve_features(student, space, 3)


def test_a_start_must_fit_the_data(tmp_path: Path) -> None:
    build_feature_student(Student(), TABLE, LABELS, seed=0).save_pretrained(tmp_path)
    start = Student(path=str(tmp_path))
    again = build_feature_student(start, TABLE, LABELS, seed=7)
    assert again.get_buffer("feature_mean").tolist() == list(TABLE.mean)
    with pytest.raises(ModelError, match="takes 4 features, the data have 40"):
        build_feature_student(start, IMAGE, LABELS, seed=0)
    with pytest.raises(ModelError, match=r"has the labels \['a', 'b', 'c'\], the data \['a', 'b'"):
        build_feature_student(start, TABLE, ("a", "b", "d"), seed=0)
    with pytest.raises(ConfigError, match="family is mlp, but the data is text"):
        build_student(Student(family="mlp"), "", LABELS, 8, seed=0)
