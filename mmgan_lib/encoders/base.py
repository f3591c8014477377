"""Base class of the encoders, masked mean, and checks of inputs."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

SURROGATE = re.compile("[\ud800-\udfff]")  # half a pair: no letter, and nothing that UTF-8 can hold


class Encoder(nn.Module, ABC):
    """One modality in; out comes a vector (B, D) or a sequence (B, T, D) of them.

    Attributes:
        out_dim: D, the length of a vector.
    """

    out_dim: int

    @abstractmethod
    def sequence(self, *inputs: Any) -> tuple[Tensor, Tensor]:
        """States (B, T, D), and their mask (B, T) bool, True where there is one."""

    def forward(self, *inputs: Any) -> Tensor:
        """The mean of the sequence, (B, D)."""
        return masked_mean(*self.sequence(*inputs))


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    r"""The mean of the states (B, T, D) that the mask (B, T) names, (B, D); zero where it names none.

    .. math:: \bar h = \frac{\sum_t m_t h_t}{\max(1, \sum_t m_t)}

    >>> masked_mean(torch.tensor([[[1.0], [3.0], [99.0]]]), torch.tensor([[True, True, False]]))
    tensor([[2.]])
    """
    total = states.masked_fill(~mask[..., None], 0).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients inside the ``with`` block; afterwards each part is in the mode that it was in.

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


def check_shape(name: str, x: Tensor | None, *shape: int | str) -> None:
    """Raises ValueError unless there is an ``x`` of this shape; a name such as ``"B"`` stands for any length but 0."""
    fits = (
        x is not None
        and x.ndim == len(shape)
        and all(n == wanted if isinstance(wanted, int) else n > 0 for n, wanted in zip(x.shape, shape, strict=True))
    )
    if not fits:
        found = "none" if x is None else f"shape {tuple(x.shape)}"
        raise ValueError(f"{name}: found {found}; expected ({', '.join(map(str, shape))}).")


def check_range(name: str, x: Tensor, limit: float, expected: str, *, training: bool = False) -> None:
    """Raises ValueError unless ``x`` holds floating-point numbers in [-limit, limit].

    In training on a GPU only the type is looked at: for a look at the numbers the CPU would wait at every step.
    """
    if training and x.is_cuda and x.is_floating_point():
        return
    low, high = x.aminmax()
    if not x.is_floating_point() or not (low >= -limit) & (high <= limit):  # also true for NaN
        dtype = str(x.dtype).removeprefix("torch.")
        raise ValueError(f"{name}: found {dtype} from {low.item():.4g} to {high.item():.4g}; expected {expected}.")


def check_texts(texts: Sequence[str]) -> None:
    """Raises ValueError unless there is at least one text, and all are strings that UTF-8 can hold."""
    if isinstance(texts, str) or len(texts) == 0:
        raise ValueError(f"texts: found {texts!r}; expected a list of at least one string.")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"texts[{i}]: found {text!r}; expected a string.")
        if half := SURROGATE.search(text):
            raise ValueError(f"texts[{i}]: found {half[0]!r}, half a surrogate pair; expected whole characters.")
