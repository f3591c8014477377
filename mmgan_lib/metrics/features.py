"""Features of images, for metrics to compare."""

import torch
from torch import Tensor, nn

from mmgan_lib.checks import check_range, check_shape
from mmgan_lib.encoders import FrozenImageNetwork, evaluating
from mmgan_lib.encoders.pretrained.image import torchvision_weights
from mmgan_lib.metrics.estimate import Features

INCEPTION = "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth"  # ends in the start of its sha256


def quantise(image: Tensor) -> Tensor:
    """Rounds images (B, C, H, W) in [-1, 1] to the nearest of 256 levels, as a file would hold them: uint8.

    Real images come from files and fakes do not; a metric should not tell them apart by that.

    Raises:
        ValueError: another shape, NaN, or values outside [-1, 1].

    >>> quantise(torch.tensor([-1.0, 0.0, 1.0]).reshape(1, 1, 1, 3))
    tensor([[[[  0, 128, 255]]]], dtype=torch.uint8)
    """
    check_shape("image", image, "B", "C", "H", "W")
    check_range("image", image, 1.0, "floating point in [-1, 1]")
    return (127.5 * (image.float() + 1)).round().to(torch.uint8)


def image_features(image: Tensor, encoder: nn.Module, *, batch_size: int = 256) -> Features:
    """Encodes images as from files, in eval mode and without gradients.

    The encoder is left in the mode that it was in. Its ``name``, or that of its class, goes with the features.

    Args:
        image: (N, C, H, W) in [-1, 1].
        encoder: maps images (B, C, H, W) in [-1, 1] to vectors (B, D), as do
            :func:`~mmgan_lib.encoders.pretrained_efficientnet`, :func:`pretrained_inception`, an
            :class:`~mmgan_lib.encoders.ImageEncoder`, or a classifier, whose logits
            :func:`~mmgan_lib.metrics.inception_score` takes.
        batch_size: images that the encoder is given at once.

    Returns:
        (N, D), on the CPU.

    Raises:
        ValueError: images of another shape, NaN, values outside [-1, 1], or an encoder that does not give vectors.

    >>> image_features(torch.ones(2, 1, 1, 2), nn.Flatten())
    Features(vectors=tensor([[1., 1.],
            [1., 1.]]), extractor='Flatten')
    """
    levels = quantise(image)
    device = next(encoder.parameters(), torch.empty(0)).device
    vectors = []
    with evaluating(encoder):
        for part in levels.split(batch_size):
            vectors.append(encoder(part.to(device) / 127.5 - 1).cpu())
            if vectors[-1].shape[:-1] != (len(part),):
                raise ValueError(f"encoder: gives {tuple(vectors[-1].shape)} of {len(part)} images; expected (B, D).")
    return Features(torch.cat(vectors), getattr(encoder, "name", type(encoder).__name__))


def pretrained_inception(*, batch_size: int = 64) -> FrozenImageNetwork:
    """Loads torchvision's Inception v3 (Szegedy et al., 2016), trained on ImageNet: 2,048 features of 299×299 pixels.

    It has nearly the layers of the network that most published distances were computed with (its pooling differs), but
    other weights and another way of resizing images: compare its numbers among themselves, not with those.

    Args:
        batch_size: images that the network sees at once.

    Raises:
        DataUnavailable: the weights are not in torch's cache and cannot be downloaded.
    """
    return _inception(torchvision_weights(INCEPTION), batch_size)


def _inception(weights: dict[str, Tensor], batch_size: int) -> FrozenImageNetwork:
    """Builds the network without the auxiliary classifier and all that comes after the last feature map."""
    from torchvision.models import inception_v3

    with torch.random.fork_rng(devices=[]):  # weights are drawn before they are loaded; nobody should notice
        network = inception_v3(weights=None, init_weights=False)
    network.load_state_dict(weights)
    layers = {name: layer for name, layer in network.named_children() if name != "AuxLogits"}
    feature_map = nn.Sequential(*list(layers.values())[:-3])  # neither mean, dropout nor classifier
    mean, std = torch.zeros(3), torch.ones(3)  # it was trained on images in [-1, 1]
    return FrozenImageNetwork(
        feature_map,
        size=299,
        mean=mean,
        std=std,
        out_dim=2048,
        name="Inception v3 trained on ImageNet",
        source="torchvision",
        batch_size=batch_size,
    )
