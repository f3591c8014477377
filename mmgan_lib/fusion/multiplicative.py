"""Fusions in which one modality multiplies another, so that what one means can depend on what the other says."""

import math
from collections.abc import Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan_lib.checks import check_counts
from mmgan_lib.fusion.base import Fusion


class Gated(Fusion):
    r"""Gated multimodal unit: the modalities weighed by gates, number by number (Arevalo et al., 2017).

    .. math:: p_m = W_m x_m, \qquad \alpha = \sigma(V [p_1, p_2]), \qquad
        h = \alpha \odot \tanh p_1 + (1 - \alpha) \odot \tanh p_2

    As in the authors' code, the gate sees the projections :math:`p_m` before the tanh, and there is no bias. More than
    two modalities have a gate each, :math:`\alpha_m = \sigma(V_m [p_1, \dots, p_M])` and
    :math:`h = \sum_m \alpha_m \odot \tanh p_m`. A missing modality adds nothing, and the gates see zeros in its place.
    Without ``out_dim``, :math:`p_m = x_m`.
    """

    aligned = True

    def __init__(self, dims: Sequence[int], out_dim: int | None = None) -> None:
        super().__init__(dims, out_dim, bias=False)
        gates = 1 if len(dims) == 2 else len(dims)
        self.gate = nn.Linear(len(dims) * self.out_dim, gates * self.out_dim, bias=False)

    def fuse(self, inputs: list[Tensor], mask: Tensor) -> Tensor:
        """Adds up what each gate lets through."""
        alpha = torch.sigmoid(self.gate(torch.cat(inputs, dim=1))).unflatten(1, (-1, self.out_dim))
        if len(inputs) == 2:
            alpha = torch.cat([alpha, 1 - alpha], dim=1)
        return (alpha * torch.stack(inputs, dim=1).tanh()).sum(dim=1)


class Bilinear(Fusion):
    r"""Bilinear form: every number of one modality times every number of the other (Jayakumar et al., 2020).

    .. math:: h = x_1^\top \mathbb{W} x_2 + U_1 x_1 + U_2 x_2 + b

    :math:`\mathbb{W}` has the shape (out_dim, D_1, D_2). More than two modalities have a :math:`\mathbb{W}` for each
    pair. A missing modality is zeros, which leaves the linear terms of the others. There is no raw vector.
    """

    least = 2

    def __init__(self, dims: Sequence[int], out_dim: int | None = None) -> None:
        super().__init__(dims, out_dim)
        self.products = nn.ModuleList(nn.Bilinear(*pair, self.out_dim, bias=False) for pair in combinations(dims, 2))
        self.linear = nn.Linear(sum(dims), self.out_dim)

    def fuse(self, inputs: list[Tensor], mask: Tensor) -> Tensor:
        """Adds the products of pairs and the linear terms."""
        pairs = zip(self.products, combinations(inputs, 2), strict=True)
        return sum(product(*pair) for product, pair in pairs) + self.linear(torch.cat(inputs, dim=1))


class TensorFusion(Fusion):
    r"""Outer product: all products of numbers from any of the modalities (Zadeh et al., 2017).

    .. math:: h = \operatorname{vec}\bigl([1, x_1] \otimes \dots \otimes [1, x_M]\bigr)

    in row-major order: the last modality's index runs fastest. Thanks to the ones, products of fewer modalities are
    among them, down to each modality alone. A missing modality is zeros, which leaves the tensor of the others. The raw
    vector has length :math:`\prod_m (1 + D_m)`.

    >>> TensorFusion([1, 2])([torch.tensor([[2.0]]), torch.tensor([[3.0, 5.0]])])
    tensor([[ 1.,  3.,  5.,  2.,  6., 10.]])
    """

    def __init__(self, dims: Sequence[int], out_dim: int | None = None) -> None:
        super().__init__(dims, out_dim, raw_dim=math.prod(1 + dim for dim in dims))

    def fuse(self, inputs: list[Tensor], mask: Tensor) -> Tensor:
        """Flattens the outer product."""
        tensor, *others = map(with_one, inputs)
        for x in others:
            tensor = (tensor[:, :, None] * x[:, None, :]).flatten(1)
        return tensor


class LowRank(Fusion):
    r"""Tensor fusion and a linear layer in one, without ever making the tensor (Liu et al., 2018).

    The weights of that layer are held to a rank r: sums of r outer products of factors :math:`w_m^{(i)}`, so that

    .. math:: h = \sum_{i=1}^r \bigodot_{m=1}^M \bigl(w_m^{(i)} [1, x_m]\bigr) + b

    The parameters grow with the sum of the lengths, not with their product. A missing modality is zeros, as in
    :class:`TensorFusion`. There is no raw vector.

    Args:
        dims: lengths of the vectors.
        out_dim: length of the shared vector.
        rank: r; with the product of all but the largest :math:`1 + D_m` nothing is lost.

    Raises:
        ValueError: a rank below 1, or what :class:`Fusion` refuses.
    """

    def __init__(self, dims: Sequence[int], out_dim: int | None = None, *, rank: int = 8) -> None:
        super().__init__(dims, out_dim)
        check_counts(rank=rank)
        self.factors = nn.ParameterList(
            torch.randn(rank, 1 + dim, self.out_dim) * (1 + dim) ** -0.5 for dim in dims
        )  # (rank, 1 + D_m, out_dim)
        self.bias = nn.Parameter(torch.zeros(self.out_dim))

    def fuse(self, inputs: list[Tensor], mask: Tensor) -> Tensor:
        """Multiplies what each modality's factors make of it, and sums over the rank."""
        pairs = zip(inputs, self.factors, strict=True)
        projected = [torch.einsum("bd,rdo->bro", with_one(x), factor) for x, factor in pairs]
        return math.prod(projected).sum(dim=1) + self.bias


class FiLM(Fusion):
    r"""Feature-wise linear modulation: the first modality scaled and shifted by the others (Perez et al., 2018).

    .. math:: h = (1 + \Gamma c) \odot x_1 + B c, \qquad c = [x_2, \dots, x_M]

    :math:`\Gamma` and :math:`B` start at zero: the identity, through which no gradient reaches the conditions before
    the first step. A missing condition is zeros, and as there is no bias, :math:`x_1` stays as it is where all are
    missing; where :math:`x_1` is, :math:`B c` is left. The raw vector has length :math:`D_1`.

    >>> x, c = torch.tensor([[1.0, 2.0]]), torch.tensor([[9.0]])
    >>> FiLM([2, 1])([x, c])
    tensor([[1., 2.]], grad_fn=<AddBackward0>)
    """

    least = 2

    def __init__(self, dims: Sequence[int], out_dim: int | None = None) -> None:
        super().__init__(dims, out_dim, raw_dim=dims[0] if dims else 0)
        self.scale_shift = nn.Linear(sum(dims[1:]), 2 * dims[0], bias=False)
        nn.init.zeros_(self.scale_shift.weight)

    def fuse(self, inputs: list[Tensor], mask: Tensor) -> Tensor:
        """Scales and shifts the first."""
        x, *conditions = inputs
        scale, shift = self.scale_shift(torch.cat(conditions, dim=1)).chunk(2, dim=1)
        return (1 + scale) * x + shift


def with_one(x: Tensor) -> Tensor:
    """Puts a one in front of each vector: (B, D) becomes (B, 1 + D).

    >>> with_one(torch.tensor([[2.0, 3.0]]))
    tensor([[1., 2., 3.]])
    """
    return F.pad(x, (1, 0), value=1.0)
