"""Accuracy, macro F1 and the confusion matrix of a classifier."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClassificationReport:
    """The result of :func:`classification_report`.

    Attributes:
        accuracy: share of the samples classified correctly.
        macro_f1: mean over classes of :math:`F_1 = 2 P R / (P + R)`, P the precision and R the recall of a class.
        confusion: (K, K) int64; row i, column j counts the samples of class i that were classified as j.
    """

    accuracy: float
    macro_f1: float
    confusion: Tensor


def classification_report(*, predicted: Tensor, label: Tensor, classes: int | None = None) -> ClassificationReport:
    """Computes accuracy, macro F1 and the confusion matrix by scikit-learn.

    A class that neither occurs nor is ever predicted has no F1, and does not count in the mean.

    Args:
        predicted: (N,) int64, the class that was told; of logits (N, K) this is ``logits.argmax(dim=1)``.
        label: (N,) int64, the true class.
        classes: K, at least 2; None for as few as hold all that occur.

    Raises:
        ValueError: another shape or type, or a class outside 0 to K - 1.

    >>> report = classification_report(predicted=torch.tensor([0, 1, 1, 1]), label=torch.tensor([0, 0, 1, 1]))
    >>> report.accuracy, round(report.macro_f1, 4)
    (0.75, 0.7333)
    >>> report.confusion
    tensor([[1, 1],
            [0, 2]])
    """
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

    for name, x in (("predicted", predicted), ("label", label)):
        if x.dtype != torch.int64 or x.ndim != 1 or len(x) == 0 or len(x) != len(label):
            expected = "(N,) torch.int64, the same N for predicted and label"
            raise ValueError(f"{name}: found {tuple(x.shape)} {x.dtype}; expected {expected}.")
    both = torch.cat([predicted, label]).cpu()
    low, high = both.aminmax()
    classes = max(2, high.item() + 1) if classes is None else classes
    if classes < 2:
        raise ValueError(f"classes is {classes}; expected at least 2.")
    if low < 0 or high >= classes:
        raise ValueError(f"predicted and label: found classes from {low} to {high}; expected 0 to {classes - 1}.")
    predicted, label = both.view(2, -1).numpy()
    return ClassificationReport(
        accuracy=float(accuracy_score(label, predicted)),
        macro_f1=float(f1_score(label, predicted, average="macro")),
        confusion=torch.from_numpy(confusion_matrix(label, predicted, labels=range(classes))),
    )
