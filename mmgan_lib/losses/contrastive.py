"""The contrastive loss of paired vectors."""

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive(a: Tensor, b: Tensor, *, temperature: float = 0.1) -> Tensor:
    r"""Asks that each vector finds its partner among all of the batch, from either side (Radford et al., 2021).

    .. math:: -\frac{1}{2B} \sum_i \left(\log \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}}
        + \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ji}}}\right),
        \qquad s_{ij} = \frac{\cos(a_i, b_j)}{\tau}

    Each half is InfoNCE (van den Oord et al., 2018). ``a`` and ``b`` are (B, D), their rows paired and of any length;
    exchanging them changes nothing. The ``temperature`` is :math:`\tau`: the lower, the more the nearest wrong partners
    count.

    Raises:
        ValueError: ``a`` and ``b`` are not (B, D) of the same shape.

    >>> contrastive(torch.eye(4), torch.ones(4, 4))  # every partner looks the same: log 4
    tensor(1.3863)
    """
    if a.shape != b.shape or a.dim() != 2:
        raise ValueError(f"a has shape {tuple(a.shape)} and b {tuple(b.shape)}; expected the same shape (B, D).")
    similarity = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / temperature
    partner = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(similarity, partner) + F.cross_entropy(similarity.T, partner)) / 2
