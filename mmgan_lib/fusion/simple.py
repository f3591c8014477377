"""The simplest fusions: end to end, sums, products, and averages of answers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmgan_lib.encoders.base import masked_mean
from mmgan_lib.fusion.base import Aligned, Whole


class Concat(Whole):
    r"""The vectors end to end.

    .. math:: h = [x_1, \dots, x_M]

    A missing modality is zeros. The raw vector has length :math:`\sum_m D_m`.

    >>> Concat([1, 2])([torch.ones(1, 1), torch.full((1, 2), 2.0)])
    tensor([[1., 2., 2.]])
    """

    def raw_dim(self) -> int:
        """The sum of the lengths."""
        return sum(self.dims)

    def fuse(self, inputs: list[Tensor], mask: Tensor) -> Tensor:
        """End to end."""
        return torch.cat(inputs, dim=1)


class Mean(Aligned):
    r"""The mean of the modalities that are there; zeros if none is.

    .. math:: h = \frac{\sum_m m_m x_m}{\max(1, \sum_m m_m)}

    where the :math:`m_m` are the mask.

    >>> x = torch.ones(1, 2)
    >>> Mean([2, 2])([x, 3 * x]), Mean([2, 2])([x, torch.nan * x], torch.tensor([[True, False]]))
    (tensor([[2., 2.]]), tensor([[1., 1.]]))
    """

    def combine(self, x: Tensor, mask: Tensor) -> Tensor:
        """The mean of what is there."""
        return masked_mean(x, mask)


class Sum(Aligned):
    r"""The sum of the modalities, each by a learned weight if ``weighted``; a missing one adds nothing.

    .. math:: h = \sum_m w_m x_m

    The weights start at 1, and stay there unless ``weighted``.

    >>> x = torch.ones(1, 2)
    >>> Sum([2, 2])([x, 3 * x])
    tensor([[4., 4.]])
    """

    def __init__(self, dims: Sequence[int], out_dim: int | None = None, *, weighted: bool = False) -> None:
        super().__init__(dims, out_dim)
        self.weight = nn.Parameter(torch.ones(len(dims), 1)) if weighted else 1.0

    def combine(self, x: Tensor, mask: Tensor) -> Tensor:
        """The weighted sum."""
        return (self.weight * x).sum(dim=1)


class Product(Aligned):
    r"""The Hadamard product: number by number, all multiplied (Kim et al., 2017).

    .. math:: h = x_1 \odot \dots \odot x_M

    With ``out_dim``, linear layers come first, as in that paper. A missing modality is a factor of 1.

    >>> x = torch.full((1, 2), 3.0)
    >>> Product([2, 2])([x, x]), Product([2, 2])([x, torch.nan * x], torch.tensor([[True, False]]))
    (tensor([[9., 9.]]), tensor([[3., 3.]]))
    """

    def combine(self, x: Tensor, mask: Tensor) -> Tensor:
        """The product of what is there."""
        return x.masked_fill(~mask[..., None], 1).prod(dim=1)


class LateAverage(Aligned):
    r"""Late fusion: each modality answers for itself, and the answers are averaged.

    With ``out_dim``, the number of classes, a linear layer for each modality gives its logits; without, the inputs are
    the logits :math:`\ell_m`. Averaged are the logits, or the probabilities, of which the logarithm is given, so that
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

    def __init__(self, dims: Sequence[int], out_dim: int | None = None, *, of_probabilities: bool = False) -> None:
        super().__init__(dims, out_dim)
        self.of_probabilities = of_probabilities

    def combine(self, x: Tensor, mask: Tensor) -> Tensor:
        """The average of the answers that are there."""
        if not self.of_probabilities:
            return masked_mean(x, mask)
        counted = mask | ~mask.any(dim=1, keepdim=True)  # of a sample without any, the zeros: equal probabilities
        answers = x.log_softmax(dim=2).masked_fill(~counted[..., None], -torch.inf)
        return answers.logsumexp(dim=1) - counted.sum(dim=1, keepdim=True).to(x.dtype).log()
