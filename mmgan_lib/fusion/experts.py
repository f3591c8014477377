"""Fusions by experts: one for each modality, or one for each region of what the modalities say together."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan_lib.fusion.base import Fusion


class ProductOfExperts(Fusion):
    r"""Product of each modality's belief about where the shared vector lies (Wu & Goodman, 2018).

    The expert of each, a linear layer, gives the mean and the logarithm of the variance of a Gaussian. The product of
    their densities and that of a unit Gaussian is again Gaussian, with

    .. math:: \sigma^2 = \frac{1}{1 + \sum_m 1 / \sigma_m^2}, \qquad
        \mu = \sigma^2 \sum_m \frac{\mu_m}{\sigma_m^2}

    number by number. The fused vector is :math:`\mu`; :meth:`posterior` also tells the variance. A missing modality has
    no expert: the fewer there are, the closer to the unit Gaussian. There is no raw vector.
    """

    def __init__(self, dims: Sequence[int], out_dim: int | None = None) -> None:
        super().__init__(dims, out_dim)
        self.experts = nn.ModuleList(nn.Linear(dim, 2 * self.out_dim) for dim in dims)

    def fuse(self, inputs: list[Tensor], mask: Tensor) -> Tensor:
        """Takes the mean of the product."""
        return self._product(inputs, mask)[0]

    def posterior(self, inputs: Sequence[Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Computes mean and variance of the product, (B, out_dim) each; takes what a call takes."""
        return self._product(*self.prepare(inputs, mask))

    def _product(self, inputs: list[Tensor], mask: Tensor) -> tuple[Tensor, Tensor]:
        answers = torch.stack([expert(x) for expert, x in zip(self.experts, inputs, strict=True)], dim=1)
        mean, log_variance = answers.chunk(2, dim=2)
        log_precision = -log_variance.masked_fill(~mask[..., None], torch.inf)
        with_unit = F.pad(log_precision, (0, 0, 1, 0))  # log 1 = 0 for the unit Gaussian, in front of the others
        variance, *shares = with_unit.softmax(dim=1).unbind(1)  # precisions over their sum, which is 1 / variance
        return sum(share * mean[:, m] for m, share in enumerate(shares)), variance


class Cluster(Fusion):
    r"""Mixture of experts, one for each region of what all modalities say together (Jacobs et al., 1991).

    With :math:`x = [x_1, \dots, x_M]`, centroids :math:`c_k` and linear experts :math:`W_k x + b_k`,

    .. math:: h = \sum_k p_k (W_k x + b_k), \qquad p = \operatorname{softmax}_k\bigl(-\tfrac12 \lVert x - c_k \rVert^2
        \bigr)

    so that :math:`p_k` is the probability of cluster k in a mixture of unit Gaussians. Where ``hard``, the nearest
    centroid has all of it. A missing modality does not count in the distance, as if the Gaussians were marginalised,
    and is zeros to the experts. There is no raw vector.

    Args:
        dims: lengths of the vectors.
        out_dim: length of the shared vector.
        centroids: how many to learn; or, as :func:`kmeans` finds them, where they begin, (K, sum of the lengths).
        hard: whether each sample belongs to the nearest centroid alone; the centroids then stay where they are.

    Raises:
        ValueError: ``hard`` with centroids that would have to be learned, centroids of another shape, or what
            :class:`Fusion` refuses.
    """

    def __init__(
        self,
        dims: Sequence[int],
        out_dim: int | None = None,
        *,
        centroids: int | Tensor = 8,
        hard: bool = False,
    ) -> None:
        super().__init__(dims, out_dim)
        if isinstance(centroids, int):
            if hard or centroids < 1:
                expected = "centroids from kmeans, because hard ones cannot be learned" if hard else "at least 1"
                raise ValueError(f"centroids is {centroids}; expected {expected}.")
            centroids = torch.randn(centroids, sum(dims))
        if centroids.ndim != 2 or centroids.shape[1] != sum(dims):
            raise ValueError(f"centroids: found shape {tuple(centroids.shape)}; expected (K, {sum(dims)}).")
        self.hard = hard
        self.centroids = nn.Parameter(centroids.clone(), requires_grad=not hard)
        self.experts = nn.Linear(sum(dims), len(centroids) * self.out_dim)

    def fuse(self, inputs: list[Tensor], mask: Tensor) -> Tensor:
        """Adds up what the experts say, each as far as the sample is in its cluster."""
        p = self._shares(inputs, mask)
        answers = self.experts(torch.cat(inputs, dim=1)).unflatten(1, (-1, self.out_dim))
        return (p[..., None] * answers).sum(dim=1)

    def assignment(self, inputs: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        """Tells how far each sample is in each cluster, (B, K), summing to 1; takes what a call takes."""
        return self._shares(*self.prepare(inputs, mask))

    def _shares(self, inputs: list[Tensor], mask: Tensor) -> Tensor:
        counts = torch.cat([mask[:, m, None].expand(-1, dim) for m, dim in enumerate(self.dims)], dim=1)[:, None]
        squares = (torch.cat(inputs, dim=1)[:, None] - self.centroids).square()
        distance = squares.masked_fill(~counts, 0).sum(dim=2)
        if self.hard:
            return F.one_hot(distance.argmin(dim=1), len(self.centroids)).to(distance.dtype)
        return (-0.5 * distance).softmax(dim=1)


def kmeans(inputs: Sequence[Tensor], clusters: int, *, seed: int = 0) -> Tensor:
    """Finds centroids (clusters, sum of D_m) for vectors of all modalities: k-means (Lloyd, 1982), scikit-learn's.

    Args:
        inputs: vectors (N, D_m), one for each modality, nothing missing.
        clusters: how many.
        seed: of the ten random starts, of which the best is kept.
    """
    from sklearn.cluster import KMeans

    x = torch.cat(list(inputs), dim=1)
    centroids = KMeans(clusters, n_init=10, random_state=seed).fit(x.detach().cpu().double().numpy()).cluster_centers_
    return torch.from_numpy(centroids).to(x)
