"""Paired data: batches of it (`Batch`), data sets that are made or loaded, and the order of training (`Loader`)."""

from mmgan_lib.datasets.batch import Batch
from mmgan_lib.datasets.digit_sources import Recordings
from mmgan_lib.datasets.digits import SpokenDigits
from mmgan_lib.datasets.download import DataUnavailable
from mmgan_lib.datasets.emoji import Emoji
from mmgan_lib.datasets.folder import CaptionedImageFolder
from mmgan_lib.datasets.interaction import Information, Interaction, information, interaction_data
from mmgan_lib.datasets.loader import Loader
from mmgan_lib.datasets.preprocess import Preprocess
from mmgan_lib.datasets.shapes import HELD_OUT_PAIRS, Shapes
from mmgan_lib.datasets.toy import GaussianMixture, gaussian_grid, gaussian_ring

__all__ = [
    "HELD_OUT_PAIRS",
    "Batch",
    "CaptionedImageFolder",
    "DataUnavailable",
    "Emoji",
    "GaussianMixture",
    "Information",
    "Interaction",
    "Loader",
    "Preprocess",
    "Recordings",
    "Shapes",
    "SpokenDigits",
    "gaussian_grid",
    "gaussian_ring",
    "information",
    "interaction_data",
]
