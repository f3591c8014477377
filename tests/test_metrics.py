"""Metrics against counting by hand."""

import pytest
import torch

from mmgan_lib.metrics import classification_report


def counted(predicted: list[int], label: list[int], classes: int) -> tuple[float, float, list[list[int]]]:
    """Accuracy, macro F1 over the classes that occur, and the confusion matrix."""
    pairs = list(zip(label, predicted, strict=True))
    confusion = [[pairs.count((i, j)) for j in range(classes)] for i in range(classes)]
    scores = []
    for k in range(classes):
        told, true = predicted.count(k), label.count(k)
        if told + true:
            scores.append(2 * confusion[k][k] / (told + true))  # = 2PR / (P + R)
    return sum(a == b for a, b in pairs) / len(pairs), sum(scores) / len(scores), confusion


@pytest.mark.parametrize(
    ("predicted", "label", "classes"),
    [
        ([0, 1, 2, 0, 1, 2], [0, 1, 2, 1, 1, 0], 3),
        ([0, 0, 0, 0], [0, 1, 2, 2], 3),  # classes that are never told
        ([3, 3, 1], [3, 3, 1], 5),  # classes that do not occur at all
        ([0], [0], 2),
        ([1], [0], 2),
    ],
)
def test_the_report_is_what_counting_gives(predicted: list[int], label: list[int], classes: int) -> None:
    report = classification_report(
        predicted=torch.tensor(predicted),
        label=torch.tensor(label),
        classes=classes,
    )
    accuracy, f1, confusion = counted(predicted, label, classes)
    assert report.accuracy == pytest.approx(accuracy)
    assert report.macro_f1 == pytest.approx(f1)
    assert report.confusion.tolist() == confusion


def test_large_numbers_of_samples_are_counted_too() -> None:
    label, predicted = torch.randint(7, (2, 300), generator=torch.Generator().manual_seed(0))
    report = classification_report(predicted=predicted, label=label)
    accuracy, f1, confusion = counted(predicted.tolist(), label.tolist(), 7)
    assert (report.accuracy, report.macro_f1) == pytest.approx((accuracy, f1))
    assert report.confusion.tolist() == confusion
    assert report.confusion.dtype == torch.int64


def test_without_a_number_of_classes_those_that_occur_are_counted() -> None:
    def size(*classes: int) -> tuple[int, ...]:
        return tuple(
            classification_report(predicted=torch.tensor(classes), label=torch.tensor(classes)).confusion.shape
        )

    assert size(0, 4, 1) == (5, 5)
    assert size(0, 0) == (2, 2)


def test_exchanging_truth_and_answer_transposes_the_confusion() -> None:
    a, b = torch.randint(4, (2, 50), generator=torch.Generator().manual_seed(1))
    one, other = classification_report(predicted=a, label=b), classification_report(predicted=b, label=a)
    assert torch.equal(one.confusion, other.confusion.T)
    assert one.accuracy == other.accuracy


@pytest.mark.parametrize(
    ("predicted", "label", "said"),
    [
        (torch.zeros(3, 2), torch.zeros(3).long(), r"^predicted: found \(3, 2\) torch.float32; expected \(N,\) torch"),
        (torch.zeros(3).long(), torch.zeros(3), r"^label: found \(3,\) torch.float32; expected"),
        (torch.zeros(2).long(), torch.zeros(3).long(), r"^predicted: found \(2,\) torch.int64; expected .* same N"),
        (torch.zeros(0).long(), torch.zeros(0).long(), r"^predicted: found \(0,\) torch.int64"),
        (torch.tensor([0, 5]), torch.tensor([0, 1]), r"found classes from 0 to 5; expected 0 to 3\.$"),
        (torch.tensor([0, 1]), torch.tensor([-1, 1]), r"found classes from -1 to 1; expected 0 to 3\.$"),
    ],
)
def test_what_is_no_class_is_refused(predicted: torch.Tensor, label: torch.Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        classification_report(predicted=predicted, label=label, classes=4)


def test_one_class_is_nothing_to_classify() -> None:
    with pytest.raises(ValueError, match=r"^classes is 1; expected at least 2\.$"):
        classification_report(predicted=torch.tensor([0]), label=torch.tensor([0]), classes=1)
