"""How good a model is, in numbers."""

from mmgan_lib.metrics.classification import ClassificationReport, classification_report

__all__ = ["ClassificationReport", "classification_report"]
