"""Explanations of models: attributions, the worth of modalities, latent directions, and tests of explanations.

A model is any function that maps inputs (B, ...) to one number for each sample, (B,): the number to be explained, such
as ``lambda x: classifier(x)[:, 3]``.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan_lib.checks import check_counts, check_shape
from mmgan_lib.encoders.base import detached_copy

Model = Callable[[Tensor], Tensor]
MOST_PLAYERS = 12  # 4,096 coalitions


def saliency(model: Model, x: Tensor) -> Tensor:
    r"""Computes the slope of the answer in each number of the input (Simonyan et al., 2014).

    .. math:: s_i = \left| \frac{\partial f(x)}{\partial x_i} \right|

    It is a slope at one point: where the answer has saturated it is small, however much the answer rests on that input.
    The model should be in eval mode, so that a sample's answer depends on that sample alone.

    Args:
        model: what is explained.
        x: (B, ...) inputs.

    Returns:
        (B, ...), as ``x``.

    Raises:
        ValueError: ``model`` does not give one number for each sample, with a gradient.
        RuntimeError: ``x`` is not floating point, or the answer does not depend on it.

    >>> saliency(lambda x: (x * torch.tensor([3.0, -2.0])).sum(dim=1), torch.zeros(1, 2))
    tensor([[3., 2.]])
    """
    return _gradient(model, x).abs()


def integrated_gradients(model: Model, x: Tensor, *, baseline: Tensor | float, steps: int = 64) -> Tensor:
    r"""Divides the change of the answer from a baseline among the input's numbers (Sundararajan et al., 2017).

    .. math:: a_i = (x_i - x'_i) \int_0^1 \frac{\partial f}{\partial x_i} \bigl(x' + t\,(x - x')\bigr)\, dt
        \;\approx\; \frac{x_i - x'_i}{K} \sum_{k=1}^K
        \frac{\partial f}{\partial x_i} \Bigl(x' + \frac{k - \frac12}{K} (x - x')\Bigr)

    The slopes on the straight way from the baseline :math:`x'` to the input add up to the whole way (*completeness*):
    :math:`\sum_i a_i = f(x) - f(x')`, up to the error of the midpoint rule.

    Args:
        model: what is explained, in eval mode.
        x: (B, ...) inputs.
        baseline: an input that says nothing, of a shape that broadcasts to that of ``x``.
        steps: K, of the midpoint rule.

    Returns:
        (B, ...), as ``x``; positive where the input spoke for the answer.

    Raises:
        ValueError: fewer than one step, or what :func:`saliency` refuses.
        RuntimeError: ``baseline`` does not broadcast to the shape of ``x``.

    >>> integrated_gradients(lambda x: x[:, 0] * x[:, 1], torch.tensor([[2.0, 3.0]]), baseline=0.0)
    tensor([[3., 3.]])
    """
    check_counts(steps=steps)
    way = x - torch.as_tensor(baseline, dtype=x.dtype, device=x.device).expand_as(x)
    total = torch.zeros_like(x)
    for k in range(steps):
        total += _gradient(model, x - (1 - (k + 0.5) / steps) * way)
    return way * total / steps


def _gradient(model: Model, x: Tensor) -> Tensor:
    """Computes ∂f/∂x for each sample, (B, ...): samples do not meet, so that one sum has all their gradients."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        answer = model(x)
        total = answer.sum()
    if answer.shape != x.shape[:1] or not answer.requires_grad:
        found = f"shape {tuple(answer.shape)}" + ("" if answer.requires_grad else " without a gradient")
        raise ValueError(f"model: found an answer of {found}; expected ({len(x)},), a function of each sample.")
    (slope,) = torch.autograd.grad(total, x)
    return slope


def shapley_values(value: Callable[[Tensor], Tensor], *, players: int) -> Tensor:
    r"""Divides what a few players, such as modalities, reach together among them (Shapley, 1953).

    With :math:`v(S)` what a coalition S of the M players reaches,

    .. math:: \phi_m = \sum_{S \not\ni m} \frac{|S|!\,(M - |S| - 1)!}{M!} \bigl(v(S \cup m) - v(S)\bigr)

    the mean, over all orders in which they could come, of what m adds to those who are there already. It is the only
    rule by which the values add up to the gain, :math:`\sum_m \phi_m = v(\text{all}) - v(\text{none})`; by which equal
    players get the same, and one who adds nothing gets 0; and by which the values of a sum of games are added.

    All :math:`2^M` coalitions are tried, so that the result is exact.

    Args:
        value: maps a coalition (M,) bool to what it reaches: a number, or a number for each sample (B,); True counts
            as 1. For modalities, what the model or a metric says when ``Batch.present`` is that coalition.
        players: M, 1 to 12.

    Returns:
        (M, ...), for each player a tensor like those of ``value``.

    Raises:
        ValueError: ``players`` is out of bounds.

    >>> shapley_values(lambda coalition: coalition.all().float(), players=2)  # neither reaches anything alone
    tensor([0.5000, 0.5000])
    """
    if not 1 <= players <= MOST_PLAYERS:
        raise ValueError(f"players is {players}; expected 1 to {MOST_PLAYERS}, since all coalitions are tried.")
    coalitions = [frozenset(who) for size in range(players + 1) for who in combinations(range(players), size)]
    told = {who: value(torch.tensor([m in who for m in range(players)])) for who in coalitions}
    reached = {who: 1.0 * torch.as_tensor(reach) for who, reach in told.items()}
    weights = [1 / (players * math.comb(players - 1, size)) for size in range(players)]
    return torch.stack(
        [
            sum(weights[len(who)] * (reached[who | {m}] - reached[who]) for who in coalitions if m not in who)
            for m in range(players)
        ]
    )


@contextmanager
def attention_weights(model: nn.Module) -> Iterator[list[Tensor]]:
    r"""Notes where each ``nn.MultiheadAttention`` of a model looks, while the model runs inside the ``with`` block.

    .. math:: A = \operatorname{softmax}\Bigl(\frac{Q K^\top}{\sqrt d}\Bigr)

    averaged over the heads. The list fills in the order of the calls; in :class:`~mmgan_lib.fusion.CrossAttention`,
    the order of the modalities: ``weights[m]`` is (B, T_m, K + 1), how much each state of modality m looks at each of
    the K states of the others, and last at nothing. Each row sums to 1.

    Raises:
        ValueError: the model has no such layer.

    >>> attend = nn.MultiheadAttention(4, num_heads=2, batch_first=True)
    >>> with attention_weights(attend) as weights:
    ...     _ = attend(torch.ones(1, 3, 4), torch.ones(1, 5, 4), torch.ones(1, 5, 4))
    >>> weights[0].shape
    torch.Size([1, 3, 5])
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.MultiheadAttention)]
    if not layers:
        raise ValueError(f"model: found no nn.MultiheadAttention in {type(model).__name__}; expected at least one.")
    weights: list[Tensor] = []

    def ask(_: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return inputs, options | {"need_weights": True}

    def note(_: nn.Module, __: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        weights.append(output[1].detach())

    hooks = [layer.register_forward_pre_hook(ask, with_kwargs=True) for layer in layers]
    hooks += [layer.register_forward_hook(note) for layer in layers]
    try:
        yield weights
    finally:
        for hook in hooks:
            hook.remove()


def latent_directions(matrix: Tensor, count: int) -> Tensor:
    r"""Finds the directions in which a linear map changes most, strongest first, without any label.

    .. math:: n_k = \operatorname*{arg\,max}_{\lVert n \rVert = 1,\; n \perp n_1, \dots, n_{k-1}} \lVert A n \rVert

    the eigenvectors of :math:`A^\top A`. With A the weight of a generator's first layers, one below the other, this is
    SeFa (Shen & Zhou, 2021): directions in which the image is changed most. With the centred vectors of many
    samples as the rows of A it is principal component analysis, GANSpace (Härkönen et al., 2020): directions in which
    the samples vary most. To walk along one, add multiples of it to the generator's input.

    Args:
        matrix: A, (N, D).
        count: how many directions, at most min(N, D).

    Returns:
        (count, D), orthonormal; the sign of each means nothing.

    Raises:
        ValueError: another shape, or more directions than there are.

    >>> latent_directions(torch.tensor([[0.0, 5.0], [1.0, 0.0]]), 2).abs()
    tensor([[0., 1.],
            [1., 0.]])
    """
    check_shape("matrix", matrix, "N", "D")
    if not 1 <= count <= min(matrix.shape):
        raise ValueError(f"count is {count}; expected 1 to {min(matrix.shape)}, as matrix is {tuple(matrix.shape)}.")
    return torch.linalg.svd(matrix.detach(), full_matrices=False).Vh[:count]


def slerp(start: Tensor, end: Tensor, t: float | Tensor) -> Tensor:
    r"""Interpolates along a great circle: noise on the way is as long as noise is (White, 2016).

    .. math:: \frac{\sin((1 - t)\,\omega)}{\sin \omega} \, a + \frac{\sin(t\,\omega)}{\sin \omega} \, b,
        \qquad \omega = \angle(a, b)

    spherical linear interpolation (Shoemake, 1985). Where the two lie on one line through 0, it is that straight line.

    Args:
        start: a, (..., D).
        end: b, (..., D); the two broadcast.
        t: 0 at the start, 1 at the end; a number, or a tensor (..., 1) of one for each vector.

    Returns:
        (..., D).

    Raises:
        ValueError: ``t`` is another tensor.

    >>> slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 0.5)
    tensor([0.7071, 0.7071])
    """
    if isinstance(t, Tensor) and t.ndim and t.shape[-1] != 1:
        expected = "a number or (..., 1), one for each vector, as by t[:, None]"
        raise ValueError(f"t: found shape {tuple(t.shape)}; expected {expected}.")
    angle = torch.arccos(F.cosine_similarity(start, end, dim=-1).clamp(-1, 1))[..., None]
    straight = angle.sin() < 1e-3
    angle = angle.masked_fill(straight, 1.0)
    arc = (torch.sin((1 - t) * angle) * start + torch.sin(t * angle) * end) / angle.sin()
    return torch.where(straight, (1 - t) * start + t * end, arc)


def pointing_accuracy(maps: Tensor, *, masks: Tensor) -> float:
    """Computes the share of maps whose highest place lies on the object: the pointing game (Zhang et al., 2018).

    Where several places are equally high, the share of them that lies on the object counts: a map that is the same
    everywhere scores what random pointing would, the mean of ``masks``.

    Args:
        maps: (N, H, W), how much each place mattered.
        masks: (N, H, W) bool, where the object is.

    Raises:
        ValueError: another shape or type, or maps that are not finite.

    >>> maps = torch.tensor([[[0.1, 0.7]], [[0.2, 0.1]], [[0.5, 0.5]]])
    >>> pointing_accuracy(maps, masks=torch.tensor([[[False, True]]]).expand(3, 1, 2))  # right, wrong, undecided
    0.5
    """
    check_shape("maps", maps, "N", "H", "W")
    if masks.shape != maps.shape or masks.dtype != torch.bool:
        raise ValueError(f"masks: found {tuple(masks.shape)} {masks.dtype}; expected {tuple(maps.shape)} torch.bool.")
    if not maps.isfinite().all():
        raise ValueError("maps: found numbers that are not finite; expected a height for each place.")
    highest = maps == maps.amax(dim=(1, 2), keepdim=True)
    return ((highest & masks).sum(dim=(1, 2)) / highest.sum(dim=(1, 2))).mean().item()


def randomised(model: nn.Module, *, generator: torch.Generator | None = None) -> nn.Module:
    """Copies a model with its weights shuffled: each tensor holds the same numbers in random order.

    An explanation of what a model learned must look different for this copy (Adebayo et al., 2018); where it does not,
    it shows the input and not the model. Shuffled weights keep the scale of each layer, whatever its kind.

    Args:
        model: what is copied; it stays as it is.
        generator: draws the order, on the CPU.

    >>> layer = nn.Linear(3, 1)
    >>> torch.equal(randomised(layer).weight.sort().values, layer.weight.sort().values)
    True
    """
    copied = detached_copy(model)
    with torch.no_grad():
        for weight in copied.parameters():
            order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
            weight.copy_(weight.flatten()[order].view_as(weight))
    return copied
