"""Models of features: exact sizes, raw features in, and what they cannot be."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from distill.aggregation import Attention, UniformMean
from distill.config import Student
from distill.errors import ConfigError, ModelError
from distill.evaluation.efficiency import folder_size_mb, measure
from distill.export.folder import ModelCard, export
from distill.models.features import FeatureSpace, feature_space
from distill.models.load import check_folder, load_classifier
from distill.models.sizes import solve_features
from distill.models.student import build_feature_student, build_student
from distill.objectives import ForwardKL
from distill.records import Batch, ScheduleValues, TeacherAnswers
from distill.training.class_module import DistillModule

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


def reference_loss(
    logits_BV: Tensor, labels_B: Tensor, logits_KBV: Tensor, weights_KB: Tensor | None = None
) -> Tensor:
    """0.7 · 2² · KL(p_T ‖ p_S) + 0.3 · CE at T 2, in float64. p_T: the softmax of the mean logits;
    with weights the weighted mean of the teachers' probabilities."""
    logits_BV, logits_KBV = logits_BV.double(), logits_KBV.double()
    if weights_KB is None:
        p_T_BV = torch.softmax(logits_KBV.mean(0) / 2, 1)
    else:
        p_T_BV = (weights_KB[..., None].double() * torch.softmax(logits_KBV / 2, 2)).sum(0)
    logp_S_BV = torch.log_softmax(logits_BV / 2, 1)
    kl_B = (p_T_BV * (p_T_BV.log() - logp_S_BV)).sum(1)
    ce_B = -torch.log_softmax(logits_BV, 1)[torch.arange(len(labels_B)), labels_B]
    return (0.7 * 4 * kl_B + 0.3 * ce_B).mean()


@pytest.mark.parametrize("family", ["mlp", "cnn"])
def test_loss_and_gradients_against_the_equation(family: str) -> None:
    """Through the module of the loop, under the mean of two teachers; all weights."""
    student = build_feature_student(
        Student.model_validate({"family": family, "hidden": 8, "dropout": 0}), IMAGE, LABELS, 0
    )
    module = DistillModule(student, ForwardKL(), UniformMean(), ("p", "q"), 3).eval()
    batch, answers = six_rows()
    loss = module(batch, answers, ScheduleValues(2.0, 0.7)).loss
    params = list(student.parameters())
    found = torch.autograd.grad(loss, params)
    logits_BV = student(features=batch.features_BD).logits
    expected = reference_loss(logits_BV, batch.labels_B, answers.logits_KBV)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    for gradient, want in zip(found, torch.autograd.grad(expected, params), strict=True):
        assert want.norm() > 0
        torch.testing.assert_close(gradient, want, rtol=1e-4, atol=1e-6)


def test_attention_weighs_teachers_by_the_hidden_state() -> None:
    """−log Σ a_m p_m(y) − α T² β H(a), whose gradient is the router's; a(x) weighs the targets."""
    student = build_feature_student(Student(family="cnn", hidden=8), IMAGE, LABELS, 0)
    aggregation = Attention(dropout=0, entropy_weight=0.05)
    module = DistillModule(student, ForwardKL(), aggregation, ("p", "q"), 3).eval()
    batch, answers = six_rows()
    assert module.router is not None
    for param in module.router.parameters():  # at the start only the last layer has a gradient
        torch.nn.init.normal_(param)
    output = module(batch, answers, ScheduleValues(2.0, 0.7))
    shown = student(features=batch.features_BD, output_hidden_states=True)
    hidden_BH = shown.hidden_states[-1].mean(1).detach()
    weights_BK = torch.softmax(module.router(hidden_BH), 1)
    assert output.weights_KB is not None
    torch.testing.assert_close(output.weights_KB, weights_BK.T)
    assert (weights_BK.max(0).values - weights_BK.min(0).values > 0.01).all()  # by the row
    p_KB = torch.softmax(answers.logits_KBV, 2)[:, torch.arange(6), batch.labels_B]
    entropy_B = -(weights_BK * weights_BK.log()).sum(1)
    own = (-(weights_BK.T * p_KB).sum(0).log() - 0.7 * 4 * 0.05 * entropy_B).mean()
    kd = reference_loss(
        shown.logits, batch.labels_B, answers.logits_KBV, output.weights_KB.detach()
    )
    torch.testing.assert_close(output.loss.double(), own + kd, rtol=1e-5, atol=0)
    params = list(module.router.parameters())
    expected = torch.autograd.grad(own, params)
    for gradient, want in zip(torch.autograd.grad(output.loss, params), expected, strict=True):
        assert want.norm() > 0
        torch.testing.assert_close(gradient, want, rtol=1e-3, atol=1e-6)


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
