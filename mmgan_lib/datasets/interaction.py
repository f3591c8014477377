"""Labels that depend on several modalities in a known way, and how much each modality tells, in bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import chain, combinations
from typing import NamedTuple

import torch
from torch import Tensor

from mmgan_lib.checks import check_counts, check_not_negative

Sources = tuple[int, ...]  # which modalities are looked at together, in increasing order
Node = tuple[Sources, ...]  # groups of sources none of which contains another: what all of these groups tell


class Information(NamedTuple):
    """The information that modalities hold about the label, in bits. Modalities are counted from 0."""

    mutual: dict[Sources, float]
    """I(X_S; Y) of each group S of modalities: ``mutual[0, 1]`` is what the first two tell together."""
    atoms: dict[Node, float]
    """The parts that these numbers are sums of: ``atoms[(0,), (1,)]`` is what either of the first two tells,
    ``atoms[(0, 1),]`` what only both together tell. I(X_S; Y) is the sum of the atoms that have a group within S."""

    @property
    def _count(self) -> int:
        return max(map(len, self.mutual))

    @property
    def redundancy(self) -> float:
        """The information that every modality holds."""
        return self.atoms[tuple((m,) for m in range(self._count))]

    @property
    def unique(self) -> tuple[float, ...]:
        """The information that one modality holds and no others, even together. Of two: I(X_i; Y) - redundancy."""
        return tuple(self.atoms[((m,),)] for m in range(self._count))

    @property
    def synergy(self) -> float:
        """The information that only all modalities together hold."""
        return self.atoms[(tuple(range(self._count)),)]


class Interaction(NamedTuple):
    """Samples of modalities that interact in a known way."""

    features: tuple[Tensor, ...]
    """For each modality (N, D) float32: the code of its state, with noise."""
    label: Tensor
    """(N,) int64."""
    states: Tensor
    """(N, M) int64, the state of each modality."""
    information: Information
    """The information of the states about the label; the features hold at most as much."""


def _redundant(modalities: int) -> Tensor:
    """Lists the outcomes of one coin that every modality shows."""
    return torch.tensor([[coin] * modalities + [coin] for coin in (0, 1)])


def _unique(modalities: int) -> Tensor:
    """Lists the outcomes of a coin for each modality; the label is the first."""
    coins = _coins(modalities)
    return torch.cat([coins, coins[:, :1]], dim=1)


def _synergistic(modalities: int) -> Tensor:
    """Lists the outcomes of a coin for each modality; the label is their parity (XOR), of which fewer tell nothing."""
    coins = _coins(modalities)
    return torch.cat([coins, coins.sum(1, keepdim=True) % 2], dim=1)


def _mixed(modalities: int) -> Tensor:
    """Joins all three: the label tells a shared coin, a coin of the first modality alone, and a parity."""
    shared, alone, *parts = _coins(2 + modalities).T
    states = [2 * shared + part for part in parts]
    states[0] = states[0] + 4 * alone
    return torch.stack([*states, 4 * alone + 2 * shared + sum(parts) % 2], dim=1)


def _coins(count: int) -> Tensor:
    """Lists every outcome of some tosses, (2**count, count)."""
    return torch.tensor([[outcome >> toss & 1 for toss in range(count)] for outcome in range(2**count)])


KINDS: dict[str, Callable[[int], Tensor]] = {
    "redundant": _redundant,
    "unique": _unique,
    "synergistic": _synergistic,
    "mixed": _mixed,
}


def interaction_data(
    kind: str,
    n: int,
    *,
    modalities: int = 2,
    dim: int = 16,
    noise: float = 0.1,
    generator: torch.Generator | None = None,
) -> Interaction:
    r"""Draws samples whose label the modalities tell redundantly, uniquely, only together, or in all these ways.

    The states are made of fair coins: "redundant", one coin that all modalities and the label show; "unique", a coin
    for each modality, of which the label is the first; "synergistic", a coin for each, of which the label is the
    parity (XOR); "mixed", one bit of each sort in a label of 8 classes.

    State k of a modality shows as the code of length √D whose entries are

    .. math:: \sqrt2 \cos\left(\frac{\pi}{D} (k + 1) (d + \tfrac12)\right), \quad d = 0 \dots D - 1

    plus normal noise of deviation ``noise`` on each. These codes are orthogonal (they are rows of the discrete cosine
    transform) and the same on every call, so that data for training and for testing can be drawn separately.

    Args:
        kind: one of "redundant", "unique", "synergistic", "mixed".
        n: number of samples.
        modalities: number of modalities M, 2 or 3.
        dim: length D of each feature, at least 9.
        noise: standard deviation of the noise.
        generator: source of the randomness.

    Raises:
        ValueError: an argument is none of these.

    >>> data = interaction_data("synergistic", 100)
    >>> [features.shape for features in data.features], data.label.shape
    ([torch.Size([100, 16]), torch.Size([100, 16])], torch.Size([100]))
    >>> data.information.mutual
    {(0,): 0.0, (1,): 0.0, (0, 1): 1.0}
    >>> data.information.redundancy, data.information.unique, data.information.synergy
    (0.0, (0.0, 0.0), 1.0)
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, found {kind!r}.")
    check_counts(n=n)
    check_not_negative(noise=noise)
    if modalities not in (2, 3):
        raise ValueError(f"modalities must be 2 or 3, found {modalities}.")
    if dim < 9:
        raise ValueError(f"dim must be at least 9, one more than the states a modality can have, found {dim}.")
    outcomes = KINDS[kind](modalities)
    drawn = outcomes[torch.randint(len(outcomes), (n,), generator=generator)]
    states, label = drawn[:, :-1], drawn[:, -1]
    codes = _codes(dim)
    features = tuple(codes[state] + noise * torch.randn(n, dim, generator=generator) for state in states.T)
    return Interaction(features, label, states, information(_joint(outcomes)))


def _codes(dim: int) -> Tensor:
    """Returns the code of each state, (dim - 1, dim)."""
    k, d = torch.arange(1, dim)[:, None], torch.arange(dim)
    return math.sqrt(2) * torch.cos(math.pi / dim * k * (d + 0.5))


def _joint(outcomes: Tensor) -> Tensor:
    """Tabulates p(x_1, …, x_M, y) where the rows (x_1, …, x_M, y) of ``outcomes`` are equally likely."""
    joint = torch.zeros((outcomes.max(0).values + 1).tolist(), dtype=torch.float64)
    share = torch.full((len(outcomes),), 1 / len(outcomes), dtype=torch.float64)
    return joint.index_put_(tuple(outcomes.T), share, accumulate=True)


def information(joint: Tensor) -> Information:
    r"""Computes the information of discrete variables about a label from their joint distribution, in bits.

    The mutual information of a group of variables with the label is divided into what is told redundantly, uniquely
    and synergistically as Williams & Beer (2010, arXiv:1004.2515) proposed. Their measure of what several groups
    :math:`A_1, A_2, \dots` all tell is the expected minimum of what each tells about an outcome,

    .. math:: I_{\min}(Y; A_1, A_2, \dots) = \sum_y p(y) \min_i I(Y{=}y; A_i), \quad
        I(Y{=}y; A) = \sum_a p(a \mid y) \log_2 \frac{p(y \mid a)}{p(y)}

    and the atom of some groups is what is left of it when the atoms below are taken away: those of which each of the
    groups contains one of theirs. It is one of several measures in use, and calls two independent coins that together
    are the label redundant; where that matters, look at the mutual information, on which all agree.

    Args:
        joint: probabilities p(x_1, …, x_M, y) (K_1, …, K_M, K) float, M from 1 to 3.

    Raises:
        ValueError: ``joint`` has another number of axes, or is not a table of probabilities that sum to 1.

    >>> copy = torch.tensor([[[0.5, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.5]]])  # X_1 = X_2 = Y
    >>> information(copy).atoms
    {((0,), (1,)): 1.0, ((0,),): 0.0, ((1,),): 0.0, ((0, 1),): 0.0}
    """
    if not 2 <= joint.ndim <= 4:
        raise ValueError(f"joint must have an axis for each of 1 to 3 variables and for the label, found {joint.ndim}.")
    joint = joint.double()
    if not (joint >= 0).all() or abs(joint.sum() - 1) > 1e-6:
        found = f"a sum of {joint.sum():g} and {joint.min():g} as the least"
        raise ValueError(f"joint must hold probabilities that sum to 1, found {found}.")
    groups = [group for size in range(1, joint.ndim) for group in combinations(range(joint.ndim - 1), size)]
    specific = {group: _specific(joint, group) for group in groups}
    prior = joint.flatten(0, -2).sum(0)
    mutual = {group: _clean(prior @ told) for group, told in specific.items()}
    atoms: dict[Node, float] = {}
    for node in _lattice(groups):
        shared = prior @ torch.stack([specific[group] for group in node]).amin(0)
        atoms[node] = _clean(shared - sum(value for below, value in atoms.items() if _below(below, node)))
    return Information(mutual, atoms)


def _specific(joint: Tensor, group: Sources) -> Tensor:
    """Computes a group's information about each outcome of the label, I(Y=y; A) (K,); 0 where p(y) is 0."""
    others = [axis for axis in range(joint.ndim - 1) if axis not in group]
    table = (joint.sum(others) if others else joint).flatten(0, -2)  # p(a, y)
    marginal, prior = table.sum(1, keepdim=True), table.sum(0)  # p(a), p(y)
    log_ratio = torch.where(table > 0, (table / (marginal * prior)).log2(), 0.0)  # log p(y | a) / p(y)
    return torch.where(prior > 0, (table / prior * log_ratio).sum(0), 0.0)


def _lattice(groups: list[Sources]) -> list[Node]:
    """Lists every set of groups none of which contains another, each after all that lie below it."""
    sets = chain.from_iterable(combinations(groups, size) for size in range(1, len(groups) + 1))
    nodes = [node for node in sets if not any(set(a) < set(b) for a in node for b in node)]
    return sorted(nodes, key=lambda node: sum(_below(other, node) for other in nodes))


def _below(lower: Node, upper: Node) -> bool:
    """Tests whether each group of the upper node contains one of the lower node, which is another node."""
    return lower != upper and all(any(set(a) <= set(b) for a in lower) for b in upper)


def _clean(bits: Tensor | float) -> float:
    """Rounds to a billionth of a bit, so that what is zero by the formula is zero."""
    return round(float(bits), 9) + 0.0
