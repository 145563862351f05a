import pytest
import torch
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from distill.evaluation.quality import Confusion, confusion_counts


def by_sklearn(true, predicted) -> dict[str, float]:
    precision, recall, f1, _ = precision_recall_fscore_support(
        true, predicted, average="macro", zero_division=0
    )
    accuracy = accuracy_score(true, predicted)
    return {"accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1}


def draw(seed: int, num_rows: int, num_classes: int, num_domains: int):
    generator = torch.Generator().manual_seed(seed)
    true = torch.randint(num_classes, (num_rows,), generator=generator)
    noise = torch.randint(num_classes, (num_rows,), generator=generator)
    predicted = torch.where(torch.rand(num_rows, generator=generator) < 0.6, true, noise)
    domains = torch.randint(-1, num_domains, (num_rows,), generator=generator)
    return true, predicted, domains


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("num_rows", "num_classes"), [(200, 2), (300, 5), (6, 9)])
def test_agrees_with_sklearn_also_where_classes_are_absent(seed, num_rows, num_classes):
    true, predicted, domains = draw(seed, num_rows, num_classes, 3)
    counts_DCC = confusion_counts(true, predicted, domains, num_classes, 3)
    expected = by_sklearn(true, predicted)
    assert Confusion(counts_DCC.sum(0)).metrics() == pytest.approx(expected, abs=1e-12)
    for index in range(3):
        here = domains == index
        assert int(counts_DCC[index].sum()) == int(here.sum())
        if here.any():
            expected = by_sklearn(true[here], predicted[here])
            assert Confusion(counts_DCC[index]).metrics() == pytest.approx(expected, abs=1e-12)


def test_counts_of_parts_add_up_to_the_counts_of_the_whole():
    true, predicted, domains = draw(0, 101, 4, 2)
    whole = confusion_counts(true, predicted, domains, 4, 2)
    parts = [confusion_counts(true[i::3], predicted[i::3], domains[i::3], 4, 2) for i in range(3)]
    assert torch.equal(sum(parts), whole)


def test_unlabelled_rows_are_as_if_deleted():
    true, predicted, domains = draw(1, 50, 3, 2)
    true[::4] = -100
    kept = true >= 0
    assert torch.equal(
        confusion_counts(true, predicted, domains, 3, 2),
        confusion_counts(true[kept], predicted[kept], domains[kept], 3, 2),
    )


def test_a_class_that_is_never_true_but_predicted_counts_as_zero():
    confusion = Confusion(torch.tensor([[3, 1], [0, 0]]))
    assert confusion.precision == pytest.approx((1 + 0) / 2)
    assert confusion.recall == pytest.approx((3 / 4 + 0) / 2)
    assert confusion.f1 == pytest.approx((6 / 7 + 0) / 2)
    assert Confusion(torch.tensor([[4, 0], [0, 0]])).f1 == 1.0
