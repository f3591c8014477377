"""Interaction data: the information in it, by closed forms, published examples and counting; and its features."""

import math
from itertools import permutations, product

import pytest
import torch

from mmgan_lib.datasets import information, interaction_data


def table(outcomes: dict[tuple[int, ...], float]) -> torch.Tensor:
    """The joint distribution (K_1, …, K) of some outcomes (x_1, …, y) with their probabilities."""
    joint = torch.zeros([max(axis) + 1 for axis in zip(*outcomes, strict=True)], dtype=torch.float64)
    for outcome, probability in outcomes.items():
        joint[outcome] += probability
    return joint


def entropy(p: torch.Tensor) -> float:
    p = p.flatten()[p.flatten() > 0]
    return -(p * p.log2()).sum().item()


def random_joint(*sizes: int, seed: int) -> torch.Tensor:
    """A distribution with some outcomes that never happen."""
    p = torch.rand(*sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    p = p * (p > 0.3)
    return p / p.sum()


# Redundancy, unique of the first, unique of the second, synergy.
PUBLISHED = {
    "Williams & Beer 2010, figure 4A": (
        {(0, 0, 0): 1 / 3, (0, 1, 1): 1 / 3, (1, 0, 2): 1 / 3},
        (math.log2(3) - 1, 1 / 3, 1 / 3, 1 / 3),
    ),
    "AND: Griffith & Koch 2014": (
        {(a, b, a & b): 1 / 4 for a, b in product((0, 1), repeat=2)},
        (1.5 - 0.75 * math.log2(3), 0, 0, 0.5),  # 0.311 bits
    ),
    "two bits copied: Harder et al. 2013": (
        {(a, b, 2 * a + b): 1 / 4 for a, b in product((0, 1), repeat=2)},
        (1, 0, 0, 1),
    ),
    "sum of two bits": (
        {(a, b, 0): 1 / 4 for a, b in [(0, 0)]} | {(0, 1, 1): 0.25, (1, 0, 1): 0.25, (1, 1, 2): 0.25},
        (0.5, 0, 0, 1),
    ),
    "XOR": ({(a, b, a ^ b): 1 / 4 for a, b in product((0, 1), repeat=2)}, (0, 0, 0, 1)),
    "copy": ({(a, a, a): 1 / 2 for a in (0, 1)}, (1, 0, 0, 0)),
    "unique": ({(a, b, b): 1 / 4 for a, b in product((0, 1), repeat=2)}, (0, 0, 1, 0)),
    "nothing": (dict.fromkeys(product((0, 1), repeat=3), 1 / 8), (0, 0, 0, 0)),
}


class TestInformation:
    @pytest.mark.parametrize(("outcomes", "expected"), PUBLISHED.values(), ids=PUBLISHED)
    def test_published_examples(self, outcomes, expected):
        found = information(table(outcomes))
        assert (found.redundancy, *found.unique, found.synergy) == pytest.approx(expected, abs=1e-8)

    @pytest.mark.parametrize("seed", range(5))
    def test_mutual_information_is_that_of_the_entropies(self, seed):
        """I(X; Y) = H(X) + H(Y) - H(X, Y)."""
        joint = random_joint(3, 2, 4, 3, seed=seed)
        found = information(joint)
        for group, bits in found.mutual.items():
            pair = joint.sum([axis for axis in range(3) if axis not in group] or [4]) if len(group) < 3 else joint
            x, y = pair.sum(-1), pair.flatten(0, -2).sum(0)
            assert bits == pytest.approx(entropy(x) + entropy(y) - entropy(pair), abs=1e-8)

    @pytest.mark.parametrize("sizes", [(4, 3), (2, 3, 4), (2, 3, 2, 3)])
    @pytest.mark.parametrize("seed", range(5))
    def test_atoms_are_not_negative_and_add_up(self, sizes, seed):
        """Both are theorems of Williams & Beer; the lattice of one, two and three sources has 1, 4 and 18 nodes."""
        found = information(random_joint(*sizes, seed=seed))
        assert len(found.atoms) == {2: 1, 3: 4, 4: 18}[len(sizes)]
        assert min(found.atoms.values()) >= 0
        for group, bits in found.mutual.items():
            within = [value for node, value in found.atoms.items() if any(set(part) <= set(group) for part in node)]
            assert sum(within) == pytest.approx(bits, abs=1e-7)

    def test_does_not_depend_on_names_or_order_of_outcomes(self):
        joint = random_joint(3, 2, 4, seed=1)
        relabelled = joint[[2, 0, 1]][:, [1, 0]][:, :, [3, 1, 0, 2]]
        assert information(relabelled).atoms == pytest.approx(information(joint).atoms, abs=1e-8)

    def test_modalities_change_their_roles_with_their_order(self):
        joint = random_joint(3, 2, 2, 4, seed=2)
        found = information(joint)
        for order in permutations(range(3)):
            moved = information(joint.permute(*order, 3))
            assert moved.unique == pytest.approx([found.unique[m] for m in order], abs=1e-8)
            assert (moved.redundancy, moved.synergy) == pytest.approx((found.redundancy, found.synergy), abs=1e-8)

    def test_an_outcome_that_never_happens_changes_nothing(self):
        joint = random_joint(3, 2, 4, seed=3)
        padded = torch.nn.functional.pad(joint, (0, 1, 1, 0, 0, 2))
        assert information(padded).atoms == pytest.approx(information(joint).atoms, abs=1e-8)

    @pytest.mark.parametrize(
        ("joint", "message"),
        [
            (torch.full((2,), 0.5), "found 1"),
            (torch.full((2,) * 5, 1 / 32), "found 5"),
            (torch.full((2, 2), 0.5), "sum to 1, found a sum of 2"),
            (torch.tensor([[1.5, -0.5], [0.0, 0.0]]), "-0.5 as the least"),
            (torch.full((2, 2), math.nan), "found a sum of nan"),
        ],
    )
    def test_refuses_what_is_no_distribution(self, joint, message):
        with pytest.raises(ValueError, match=message):
            information(joint)


def draw(kind: str, modalities: int, n: int = 4000, **options):
    return interaction_data(kind, n, modalities=modalities, generator=torch.Generator().manual_seed(7), **options)


class TestInteractionData:
    @pytest.mark.parametrize("modalities", [2, 3])
    @pytest.mark.parametrize(
        ("kind", "redundancy", "unique", "synergy"),
        [("redundant", 1, 0, 0), ("unique", 0, 1, 0), ("synergistic", 0, 0, 1), ("mixed", 1, 1, 1)],
    )
    def test_kinds_are_what_they_are_called(self, kind, modalities, redundancy, unique, synergy):
        found = draw(kind, modalities).information
        assert (found.redundancy, found.synergy) == (redundancy, synergy)
        assert found.unique == (unique,) + (0,) * (modalities - 1)
        assert sum(found.atoms.values()) == redundancy + unique + synergy

    def test_of_three_modalities_in_parity_no_two_tell_anything(self):
        mutual = draw("synergistic", 3).information.mutual
        assert mutual.pop((0, 1, 2)) == 1
        assert len(mutual) == 6
        assert set(mutual.values()) == {0}

    @pytest.mark.parametrize("modalities", [2, 3])
    @pytest.mark.parametrize("kind", ["redundant", "unique", "synergistic", "mixed"])
    def test_information_is_that_of_the_states_drawn(self, kind, modalities):
        """The plug-in estimate from n samples is too large by about (outcomes)/(2 n ln 2) bits."""
        data = draw(kind, modalities, n=20_000)
        joint = table({tuple(row): 0.0 for row in torch.cat([data.states, data.label[:, None]], 1).tolist()})
        rows = (*data.states.T, data.label)
        joint.index_put_(rows, torch.full((20_000,), 1 / 20_000, dtype=torch.float64), accumulate=True)
        for group, bits in information(joint).mutual.items():
            assert bits == pytest.approx(data.information.mutual[group], abs=0.005)

    @pytest.mark.parametrize("modalities", [2, 3])
    def test_states_can_be_read_from_features(self, modalities):
        """Without noise each state has one code; with it, each feature stays nearest to the code of its own state."""
        clean, noisy = draw("mixed", modalities, noise=0.0), draw("mixed", modalities, noise=0.3)
        for m in range(modalities):
            states = clean.states[:, m].unique()
            codes = torch.stack([clean.features[m][clean.states[:, m] == state][0] for state in states])
            assert torch.equal(clean.features[m], codes[clean.states[:, m]])
            assert torch.allclose(codes @ codes.T / 16, torch.eye(len(codes)), atol=1e-5)
            assert torch.equal(torch.cdist(noisy.features[m], codes).argmin(1), noisy.states[:, m])
            assert (noisy.features[m] - codes[noisy.states[:, m]]).std().item() == pytest.approx(0.3, rel=0.02)

    def test_codes_are_the_same_on_every_call(self):
        first, second = (
            interaction_data("redundant", 50, noise=0.0, generator=torch.Generator().manual_seed(seed))
            for seed in (0, 1)
        )
        assert not torch.equal(first.label, second.label)
        assert torch.equal(first.features[0][first.label == 1][0], second.features[0][second.label == 1][0])

    @pytest.mark.parametrize(("kind", "error"), [("redundant", 0.0), ("unique", 0.0), ("synergistic", 1.0)])
    def test_parity_alone_defeats_a_linear_model(self, kind, error):
        """Least squares from all features to a label of ±1 leaves this share of its variance unexplained."""
        data = draw(kind, 2)
        x = torch.cat([*data.features, torch.ones(len(data.label), 1)], dim=1).double()
        y = 2.0 * data.label.double() - 1
        residual = y - x @ torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
        assert (residual.var() / y.var()).item() == pytest.approx(error, abs=0.03)

    def test_shapes_and_seeds(self):
        data = draw("synergistic", 3, n=10, dim=12)
        assert [feature.shape for feature in data.features] == [(10, 12)] * 3
        assert (data.label.dtype, data.states.shape) == (torch.int64, (10, 3))
        assert torch.equal(data.features[2], draw("synergistic", 3, n=10, dim=12).features[2])

    @pytest.mark.parametrize(
        ("kind", "n", "options", "message"),
        [
            ("xor", 10, {}, "kind must be one of redundant, unique, synergistic, mixed, found 'xor'"),
            ("unique", 0, {}, "n is 0; expected at least 1"),
            ("unique", 10, {"modalities": 4}, "modalities must be 2 or 3, found 4"),
            ("unique", 10, {"dim": 8}, "dim must be at least 9.*found 8"),
            ("unique", 10, {"noise": -0.1}, "noise is -0.1; expected 0 or more"),
        ],
    )
    def test_refuses_bad_arguments(self, kind, n, options, message):
        with pytest.raises(ValueError, match=message):
            interaction_data(kind, n, **options)
