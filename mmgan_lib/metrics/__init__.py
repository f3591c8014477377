"""Metrics of models: fidelity, diversity, memorisation, and agreement with captions and classes."""

from mmgan_lib.metrics.captions import caption_accuracy, read_attributes
from mmgan_lib.metrics.card import EvaluationCard, evaluation_card
from mmgan_lib.metrics.classification import ClassificationReport, classification_report
from mmgan_lib.metrics.classifier_scores import classification_accuracy_score, inception_score, r_precision
from mmgan_lib.metrics.distance import KernelDistance, fid, frechet_distance, kernel_distance, kid
from mmgan_lib.metrics.estimate import Estimate, Features, bootstrap
from mmgan_lib.metrics.features import image_features, pretrained_inception, quantise
from mmgan_lib.metrics.modes import ModeCoverage, mode_coverage, nearest_mode
from mmgan_lib.metrics.nearest_neighbours import (
    DensityCoverage,
    PrecisionRecall,
    density_coverage,
    memorisation,
    pairwise_diversity,
    precision_recall,
)
from mmgan_lib.statistics import binomial_interval, mean_interval

__all__ = [
    "ClassificationReport",
    "DensityCoverage",
    "Estimate",
    "EvaluationCard",
    "Features",
    "KernelDistance",
    "ModeCoverage",
    "PrecisionRecall",
    "binomial_interval",
    "bootstrap",
    "caption_accuracy",
    "classification_accuracy_score",
    "classification_report",
    "density_coverage",
    "evaluation_card",
    "fid",
    "frechet_distance",
    "image_features",
    "inception_score",
    "kernel_distance",
    "kid",
    "mean_interval",
    "memorisation",
    "mode_coverage",
    "nearest_mode",
    "pairwise_diversity",
    "precision_recall",
    "pretrained_inception",
    "quantise",
    "r_precision",
    "read_attributes",
]
