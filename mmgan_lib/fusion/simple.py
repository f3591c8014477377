"""The simplest fusions: concatenation, sums, products, and averages of answers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmgan_lib.encoders.base import masked_mean
from mmgan_lib.fusion.base import Fusion


class Concat(Fusion):
    r"""Concatenation of the vectors.

    .. math:: h = [x_1, \dots, x_M]

    A missing modality is zeros. The raw vector has length :math:`\sum_m D_m`.

    >>> Concat([1, 2])([torch.ones(1, 1), torch.full((1, 2), 2.0)])
    tensor([[1., 2., 2.]])
    """

    def __init__(self, dims: Sequence[int], out_dim: int | None = None) -> None:
        super().__init__(dims, out_dim, raw_dim=sum(dims))

    def fuse(self, inputs: list[Tensor], mask: Tensor) -> Tensor:
        """Puts them end to end."""
        return torch.cat(inputs, dim=1)


class Mean(Fusion):
    r"""Mean of the modalities that are there; zeros if none is.

    .. math:: h = \frac{\sum_m m_m x_m}{\max(1, \sum_m m_m)}

    where the :math:`m_m` are the mask.

    >>> x = torch.ones(1, 2)
    >>> Mean([2, 2])([x, 3 * x]), Mean([2, 2])([x, torch.nan * x], torch.tensor([[True, False]]))
    (tensor([[2., 2.]]), tensor([[1., 1.]]))
    """

    aligned = True

    def fuse(self, inputs: list[Tensor], mask: Tensor) -> Tensor:
        """Averages what is there."""
        return masked_mean(torch.stack(inputs, dim=1), mask)


class Sum(Fusion):
    r"""Sum of the modalities, with learned weights if ``weighted``; a missing one adds nothing.

    .. math:: h = \sum_m w_m x_m

    The weights start at 1, and stay there unless ``weighted``.

    >>> x = torch.ones(1, 2)
    >>> Sum([2, 2])([x, 3 * x])
    tensor([[4., 4.]])
    """

    aligned = True

    def __init__(self, dims: Sequence[int], out_dim: int | None = None, *, weighted: bool = False) -> None:
        super().__init__(dims, out_dim)
        self.weight = nn.Parameter(torch.ones(len(dims), 1)) if weighted else 1.0

    def fuse(self, inputs: list[Tensor], mask: Tensor) -> Tensor:
        """Adds them up by their weights."""
        return (self.weight * torch.stack(inputs, dim=1)).sum(dim=1)


class Product(Fusion):
    r"""Hadamard product of the modalities, number by number (Kim et al., 2017).

    .. math:: h = x_1 \odot \dots \odot x_M

    With ``out_dim``, linear layers come first, as in that paper. A missing modality is a factor of 1.

    >>> x = torch.full((1, 2), 3.0)
    >>> Product([2, 2])([x, x]), Product([2, 2])([x, torch.nan * x], torch.tensor([[True, False]]))
    (tensor([[9., 9.]]), tensor([[3., 3.]]))
    """

    aligned = True

    def fuse(self, inputs: list[Tensor], mask: Tensor) -> Tensor:
        """Multiplies what is there."""
        return torch.stack(inputs, dim=1).masked_fill(~mask[..., None], 1).prod(dim=1)


class LateAverage(Fusion):
    r"""Late fusion: the average of the modalities' own answers.

    With ``out_dim``, the number of classes, a linear layer for each modality gives its logits; without, the inputs are
    the logits :math:`\ell_m`. Averaged are the logits, or the probabilities, of which the logarithm is taken, so that
    either way the result is logits:

    .. math:: h = \frac1M \sum_m \ell_m \qquad\text{or}\qquad h = \log \frac1M \sum_m \operatorname{softmax}(\ell_m)

    The averages are over the modalities that are there; if none is, all classes are equally likely. Nothing should
    follow it but the loss: of two classes it can only add up what each modality says, so it cannot learn XOR.

    Args:
        dims: lengths of the vectors.
        out_dim: number of classes, or None.
        of_probabilities: whether to average probabilities rather than logits.

    >>> sure, unsure = torch.tensor([[10.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> LateAverage([2, 2])([sure, unsure]).softmax(dim=1)
    tensor([[0.9890, 0.0110]])
    >>> LateAverage([2, 2], of_probabilities=True)([sure, unsure]).softmax(dim=1)
    tensor([[0.6344, 0.3656]])
    """

    aligned = True

    def __init__(self, dims: Sequence[int], out_dim: int | None = None, *, of_probabilities: bool = False) -> None:
        super().__init__(dims, out_dim)
        self.of_probabilities = of_probabilities

    def fuse(self, inputs: list[Tensor], mask: Tensor) -> Tensor:
        """Averages the answers that are there."""
        logits = torch.stack(inputs, dim=1)
        if not self.of_probabilities:
            return masked_mean(logits, mask)
        counted = mask | ~mask.any(dim=1, keepdim=True)  # of a sample without any, the zeros: equal probabilities
        answers = logits.log_softmax(dim=2).masked_fill(~counted[..., None], -torch.inf)
        return answers.logsumexp(dim=1) - counted.sum(dim=1, keepdim=True).to(logits.dtype).log()
