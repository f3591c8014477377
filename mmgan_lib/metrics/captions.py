"""Accuracy of generated images against the attributes that their captions ask for."""

from functools import cache

import torch
from torch import Tensor, nn

from mmgan_lib.checkpoint import load_pretrained
from mmgan_lib.checks import check_shape
from mmgan_lib.datasets.shapes import VOCABULARIES
from mmgan_lib.encoders import ImageEncoder, evaluating
from mmgan_lib.metrics.estimate import Estimate
from mmgan_lib.metrics.features import quantise
from mmgan_lib.statistics import binomial_interval

CLASSIFIER = "attribute classifier of Shapes"
VALUES = [len(values) for values in VOCABULARIES.values()]  # how many each attribute has
BATCH = 256  # images that the classifier reads at once


class AttributeClassifier(nn.Module):
    """A reader of shape, colour, size and place in an image of :class:`~mmgan_lib.datasets.Shapes`."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ImageEncoder(64, width=20)
        self.head = nn.Linear(self.encoder.out_dim, sum(VALUES))

    def forward(self, image: Tensor) -> Tensor:
        """Maps images (B, 3, H, W) in [-1, 1] to logits (B, 6 + 7 + 3 + 9) of all values, attribute by attribute."""
        return self.head(self.encoder(image))


def caption_accuracy(*, drawn: Tensor, asked: Tensor) -> dict[str, Estimate]:
    """Computes for each attribute the share of the images that show the value that was asked for.

    The values are read by :func:`read_attributes`, from images rounded to the 256 levels that a file holds. Samples
    are taken to be independent: the interval says how sure the share of *this* generator is, not how much it would
    change were the generator trained again.

    Args:
        drawn: (N, 3, H, W) images in [-1, 1].
        asked: (N, 4) int64, for each the values of shape, colour, size and place, as in ``Shapes(...).attributes``.

    Returns:
        ``"shape"``, ``"colour"``, ``"size"`` and ``"place"``, each an :class:`Estimate` with the interval of
        :func:`binomial_interval`.

    Raises:
        ValueError: ``asked`` has another shape or type or holds a value that there is not, or ``drawn`` is refused.
    """
    check_shape("drawn", drawn, "B", 3, "H", "W")
    expected = (len(drawn), len(VOCABULARIES))
    if asked.shape != expected or asked.dtype != torch.int64:
        raise ValueError(f"asked: found {tuple(asked.shape)} {asked.dtype}; expected {expected} torch.int64.")
    for name, column, values in zip(VOCABULARIES, asked.T, VALUES, strict=True):
        if not 0 <= column.min() <= column.max() < values:
            found = f"{column.min()} to {column.max()}"
            raise ValueError(f"asked: found values of {name} from {found}; expected 0 to {values - 1}.")
    agrees = read_attributes(drawn) == asked.cpu()
    return {name: _share(column) for name, column in zip(VOCABULARIES, agrees.T, strict=True)}


def read_attributes(image: Tensor) -> Tensor:
    """Classifies shape, colour, size and place of the images, (N, 4) int64 on the CPU.

    A small network reads them that ships with the library and took no part in the training of any generator. How often
    it is right about real images stands in the manifest of the weights (``attribute_classifier``).

    Args:
        image: (N, 3, H, W) in [-1, 1]; it is rounded to 256 levels first.

    Raises:
        ValueError: another number of channels, or values outside [-1, 1].
    """
    check_shape("image", image, "B", 3, "H", "W")
    pixels = quantise(image)
    classifier = _attribute_classifier(image.device)
    with evaluating(classifier):
        logits = torch.cat([classifier(part / 127.5 - 1) for part in pixels.split(BATCH)])
    return torch.stack([part.argmax(dim=1) for part in logits.split(VALUES, dim=1)], dim=1).cpu()


def _share(agrees: Tensor) -> Estimate:
    """Computes the share of (N,) bool that is True."""
    hits, n = int(agrees.sum()), len(agrees)
    low, high = binomial_interval(hits, n)
    return Estimate(hits / n, low, high, n_real=0, n_fake=n, extractor=CLASSIFIER)


@cache
def _attribute_classifier(device: torch.device) -> AttributeClassifier:
    with torch.random.fork_rng(devices=[]):  # weights are drawn before they are loaded; nobody should notice
        classifier = AttributeClassifier()
    load_pretrained("attribute_classifier", classifier)
    return classifier.to(device).eval()
