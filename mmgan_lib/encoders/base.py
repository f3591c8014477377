"""Base class of the encoders, the masked mean, and copies and eval mode of modules."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """The base of encoders: one modality in, a vector (B, D) or a sequence (B, T, D) of them out.

    Attributes:
        out_dim: D, the length of a vector.
    """

    out_dim: int

    @abstractmethod
    def sequence(self, *inputs: Any) -> tuple[Tensor, Tensor]:
        """Returns states (B, T, D), and their mask (B, T) bool, True where there is one."""

    def forward(self, *inputs: Any) -> Tensor:
        """Returns the mean of the sequence, (B, D)."""
        return masked_mean(*self.sequence(*inputs))


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    r"""Computes the mean of the states (B, T, D) that the mask (B, T) names, (B, D); zero where it names none.

    .. math:: \bar h = \frac{\sum_t m_t h_t}{\max(1, \sum_t m_t)}

    >>> masked_mean(torch.tensor([[[1.0], [3.0], [99.0]]]), torch.tensor([[True, True, False]]))
    tensor([[2.]])
    """
    total = states.masked_fill(~mask[..., None], 0).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Sets eval mode without gradients inside the ``with`` block, and the former mode of each part after it.

    >>> layer = nn.Dropout()
    >>> with evaluating(layer):
    ...     layer.training
    False
    >>> layer.training
    True
    """
    before = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in before.items():
            part.training = training


def detached_copy(module: nn.Module) -> nn.Module:
    """Copies a module; a weight that its last forward pass computed is copied without the graph of that pass.

    Such a weight, which ``copy.deepcopy`` alone refuses, is there under ``nn.utils.spectral_norm`` and ``weight_norm``.
    """
    held = (value for part in module.modules() for value in vars(part).values() if isinstance(value, Tensor))
    computed = {id(value): value.detach().clone() for value in held if not value.is_leaf}
    return copy.deepcopy(module, computed)
