"""Explanations: against closed forms, the axioms they are known by, and captum."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients, Saliency, ShapleyValues
from sklearn.decomposition import PCA
from torch import Tensor, nn

from mmgan_lib.datasets import Batch
from mmgan_lib.encoders import AudioEncoder, ImageEncoder
from mmgan_lib.explain import (
    attention_weights,
    integrated_gradients,
    latent_directions,
    pointing_accuracy,
    randomised,
    saliency,
    shapley_values,
    slerp,
)
from mmgan_lib.fusion import FUSIONS, CrossAttention
from mmgan_lib.models import MultimodalModel


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand(5, 3, 16, 16, generator=seeded()) * 2 - 1


@pytest.fixture
def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(ImageEncoder(8, width=4), nn.Linear(8, 4)).eval()


def logit(network: nn.Module, k: int = 2):
    return lambda x: network(x)[:, k]


# Saliency and integrated gradients


def test_saliency_agrees_with_captum(classifier: nn.Module, pictures: Tensor) -> None:
    theirs = Saliency(classifier).attribute(pictures.clone().requires_grad_(), target=2)
    torch.testing.assert_close(saliency(logit(classifier), pictures), theirs)


@pytest.mark.parametrize("steps", [2, 7, 32])
def test_integrated_gradients_agree_with_captum(classifier: nn.Module, pictures: Tensor, steps: int) -> None:
    baseline = torch.rand(5, 3, 16, 16, generator=seeded(1)) * 2 - 1
    theirs = IntegratedGradients(classifier).attribute(
        pictures, baseline, target=2, n_steps=steps, method="riemann_middle"
    )
    ours = integrated_gradients(logit(classifier), pictures, baseline=baseline, steps=steps)
    torch.testing.assert_close(ours, theirs.float())


def test_a_linear_model_has_its_weights_and_their_products() -> None:
    x, weight, baseline = (torch.randn(4, 6, generator=seeded(i)) for i in range(3))
    model = lambda z: (weight[:1] * z).sum(dim=1)  # noqa: E731
    torch.testing.assert_close(saliency(model, x), weight[:1].abs().expand(4, -1))
    expected = weight[:1] * (x - baseline)
    torch.testing.assert_close(integrated_gradients(model, x, baseline=baseline, steps=1), expected)


@pytest.mark.parametrize("power", [1, 2, 3, 4])
def test_the_midpoint_rule_converges_quadratically_to_the_closed_form(power: int) -> None:
    x = torch.tensor([[2.0]], dtype=torch.float64)
    errors = [
        (integrated_gradients(lambda z: z[:, 0] ** power, x, baseline=-1.0, steps=k).item() - 2**power + (-1) ** power)
        for k in (8, 16)
    ]
    if power <= 2:
        assert errors == pytest.approx([0, 0], abs=1e-12)  # exact for linear slopes
    else:
        assert errors[0] / errors[1] == pytest.approx(4, rel=0.02)


def test_the_parts_add_up_to_the_gain(classifier: nn.Module, pictures: Tensor) -> None:
    model, empty = logit(classifier.double()), torch.full((1, 1, 1, 1), -1.0, dtype=torch.float64)
    x = pictures.double()
    parts = integrated_gradients(model, x, baseline=empty, steps=500)
    gain = model(x) - model(empty.expand_as(x))
    torch.testing.assert_close(parts.flatten(1).sum(dim=1), gain, rtol=5e-3, atol=1e-3)


def test_what_the_model_ignores_and_what_equals_the_baseline_gets_nothing(classifier: nn.Module) -> None:
    x = torch.rand(2, 3, 16, 16, generator=seeded())
    looks_left = lambda z: classifier(F.pad(z[..., :8], (0, 8)))[:, 0]  # noqa: E731
    assert saliency(looks_left, x)[..., 8:].abs().max() == 0
    baseline = x.clone()
    baseline[:, :, :4] = 0
    parts = integrated_gradients(logit(classifier), x, baseline=baseline, steps=4)
    assert parts[:, :, 4:].abs().max() == 0
    assert parts[:, :, :4].abs().max() > 0


def test_each_sample_is_explained_by_itself_and_nothing_is_left_behind(classifier: nn.Module, pictures: Tensor) -> None:
    model = logit(classifier)
    with torch.no_grad():  # explains all the same
        together = integrated_gradients(model, pictures, baseline=0.0, steps=3)
    alone = torch.cat([integrated_gradients(model, x, baseline=0.0, steps=3) for x in pictures.split(1)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-4)
    assert not together.requires_grad
    assert not pictures.requires_grad
    assert all(weight.grad is None for weight in classifier.parameters())


def test_models_that_cannot_be_explained_are_refused() -> None:
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"model: found an answer of shape \(3, 2\); expected \(3,\)"):
        saliency(lambda z: z, x)
    with pytest.raises(ValueError, match=r"shape \(3,\) without a gradient"):
        saliency(lambda z: z.detach().sum(dim=1), x)
    weight = torch.ones(3, requires_grad=True)
    for explain in (saliency, lambda *given: integrated_gradients(*given, baseline=0.0)):
        with pytest.raises(RuntimeError, match="appears to not have been used in the graph"):
            explain(lambda z: weight, x)
    with pytest.raises(RuntimeError, match="floating point"):
        saliency(lambda z: z.sum(dim=1), x.long())
    with pytest.raises(RuntimeError, match="Float can't be cast to the desired output type Long"):
        integrated_gradients(lambda z: z.sum(dim=1), x.long(), baseline=0.0)
    with pytest.raises(ValueError, match="steps is 0; expected at least 1"):
        integrated_gradients(lambda z: z.sum(dim=1), x, baseline=0.0, steps=0)
    with pytest.raises(RuntimeError, match=r"expanded size of the tensor \(3\) must match the existing size \(5\)"):
        integrated_gradients(lambda z: z.sum(dim=1), x, baseline=torch.zeros(5, 2))


# Shapley values


def random_game(players: int, seed: int, samples: int = 4):
    """A value for each coalition, (samples,), drawn at random."""
    values = torch.randn(2**players, samples, generator=seeded(seed), dtype=torch.float64)
    places = 2 ** torch.arange(players)
    return lambda coalition: values[(coalition * places).sum()]


def coalition_of(who, players: int) -> Tensor:
    return torch.tensor([m in who for m in range(players)])


@pytest.mark.parametrize("players", [1, 2, 3, 5])
def test_shapley_values_are_the_mean_over_all_orders(players: int) -> None:
    game = random_game(players, seed=players)
    expected = torch.zeros(players, 4, dtype=torch.float64)
    for order in itertools.permutations(range(players)):
        for i, m in enumerate(order):
            before, after = (coalition_of(order[:j], players) for j in (i, i + 1))
            expected[m] += (game(after) - game(before)) / math.factorial(players)
    torch.testing.assert_close(shapley_values(game, players=players), expected)


def test_shapley_values_satisfy_the_axioms() -> None:
    one, two = random_game(4, seed=1), random_game(4, seed=2)
    phi = shapley_values(one, players=4)
    gain = one(torch.ones(4).bool()) - one(torch.zeros(4).bool())
    torch.testing.assert_close(phi.sum(dim=0), gain)  # efficiency

    both = shapley_values(lambda c: one(c) + 3 * two(c), players=4)
    torch.testing.assert_close(both, phi + 3 * shapley_values(two, players=4))  # linearity

    ignores_last = shapley_values(lambda c: one(torch.cat([c[:3], torch.tensor([False])])), players=4)
    assert ignores_last[3].abs().max() == 0  # null player

    counts_heads = shapley_values(lambda c: one(torch.arange(4) < c.sum()), players=4)
    torch.testing.assert_close(counts_heads, counts_heads[:1].expand(4, -1))  # symmetry


def test_shapley_values_agree_with_captum() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    x = torch.randn(3, 4, generator=seeded(), dtype=torch.float64)
    theirs = ShapleyValues(lambda z: model(z)[:, 0]).attribute(x, baselines=0.0)
    ours = shapley_values(lambda coalition: model(x * coalition)[:, 0].detach(), players=4)
    torch.testing.assert_close(ours.T.float(), theirs)  # captum has single precision


def test_each_coalition_is_asked_once() -> None:
    asked = []
    shapley_values(lambda c: torch.tensor(float(asked.append(tuple(c.tolist())) or c.sum())), players=5)
    assert len(asked) == len(set(asked)) == 2**5


def test_a_modality_that_a_sample_lacks_is_worth_nothing() -> None:
    torch.manual_seed(0)
    encoders = {"image": ImageEncoder(8, width=4), "audio": AudioEncoder(8, mels=8, width=4)}
    model = MultimodalModel(encoders, FUSIONS["mean"]([8, 8]), nn.Linear(8, 3)).eval()
    has = torch.tensor([[True, True], [True, False], [False, True]])
    batch = Batch(image=torch.rand(3, 3, 16, 16), audio=-80 * torch.rand(3, 1, 8, 16), present=has)

    @torch.no_grad()
    def value(coalition: Tensor) -> Tensor:
        return model(batch.replace(present=has & coalition)).log_softmax(dim=1)[:, 0]

    phi = shapley_values(value, players=2)
    torch.testing.assert_close(phi.sum(dim=0), value(torch.ones(2).bool()) - value(torch.zeros(2).bool()))
    assert (phi.T[~has] == 0).all()
    assert (phi.T[has] != 0).all()


def test_the_value_of_a_coalition_may_be_a_plain_number() -> None:
    torch.testing.assert_close(shapley_values(lambda c: float(c.sum()), players=2), torch.ones(2))


def test_reaching_a_goal_or_not_is_a_game_too() -> None:
    expected = torch.tensor([0.5, 0.5])
    for value in (lambda c: c.all(), lambda c: bool(c.all()), lambda c: int(c.all())):
        torch.testing.assert_close(shapley_values(value, players=2), expected)


def test_games_that_cannot_be_played_are_refused() -> None:
    for players in (0, 13):
        with pytest.raises(ValueError, match=f"players is {players}; expected 1 to 12"):
            shapley_values(lambda c: c.sum(), players=players)


# Attention


def test_attention_weights_are_those_of_the_layer_and_leave_no_trace() -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    query, key = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    _, expected = layer(query, key, key)
    with attention_weights(layer) as weights:
        layer(query, key, key, need_weights=False)
        layer(key, query, query, need_weights=False)
    torch.testing.assert_close(weights[0], expected.detach())
    assert [x.shape for x in weights] == [(2, 3, 5), (2, 5, 3)]
    assert not weights[0].requires_grad
    assert layer(query, key, key, need_weights=False)[1] is None
    assert len(weights) == 2


def test_attention_of_a_fusion_sums_to_one_and_skips_padding() -> None:
    torch.manual_seed(0)
    fusion = CrossAttention([6, 8], 8, heads=2).eval()
    inputs = [torch.randn(3, 4, 6), torch.randn(3, 5, 8)]
    masks = [torch.ones(3, 4, dtype=torch.bool), torch.ones(3, 5, dtype=torch.bool)]
    masks[1][0, 3:] = False
    masks[1][2] = False
    with attention_weights(fusion) as weights:
        noted = fusion(inputs, masks)
    torch.testing.assert_close(noted, fusion(inputs, masks))
    assert [x.shape for x in weights] == [(3, 4, 6), (3, 5, 5)]
    for x in weights:
        torch.testing.assert_close(x.sum(dim=2), torch.ones(x.shape[:2]))
    assert (weights[0][0, :, 3:5] == 0).all()
    torch.testing.assert_close(weights[0][2, :, 5], torch.ones(4))  # all others are missing: it looks at nothing


def test_the_hooks_go_even_where_the_model_fails() -> None:
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    with pytest.raises(ZeroDivisionError), attention_weights(layer):
        raise ZeroDivisionError
    assert not layer._forward_hooks
    assert not layer._forward_pre_hooks
    with (
        pytest.raises(ValueError, match=r"found no nn\.MultiheadAttention in Linear"),
        attention_weights(nn.Linear(2, 2)),
    ):
        pass


# Latent directions


def test_latent_directions_are_eigenvectors_and_orthonormal() -> None:
    matrix = torch.randn(40, 6, generator=seeded(), dtype=torch.float64)
    found = latent_directions(matrix, 6)
    torch.testing.assert_close(found @ found.T, torch.eye(6, dtype=torch.float64))
    values = torch.linalg.eigvalsh(matrix.T @ matrix).flip(0)
    torch.testing.assert_close((matrix @ found.T).square().sum(dim=0), values)  # strongest first


def test_no_other_direction_changes_more() -> None:
    matrix = torch.randn(10, 4, generator=seeded())
    others = F.normalize(torch.randn(500, 4, generator=seeded(1)), dim=1)
    strongest = (matrix @ latent_directions(matrix, 1)[0]).norm()
    assert (others @ matrix.T).norm(dim=1).max() <= strongest + 1e-5


def test_directions_of_centred_samples_are_principal_components() -> None:
    samples = torch.randn(200, 5, generator=seeded(), dtype=torch.float64) * torch.arange(1, 6)
    theirs = torch.from_numpy(PCA(3).fit(samples.numpy()).components_)
    ours = latent_directions(samples - samples.mean(dim=0), 3)
    torch.testing.assert_close((ours * theirs).sum(dim=1).abs(), torch.ones(3, dtype=torch.float64))


def test_impossible_directions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"matrix: found shape \(3,\); expected \(N, D\)"):
        latent_directions(torch.zeros(3), 1)
    for count in (0, 3):
        with pytest.raises(ValueError, match=rf"count is {count}; expected 1 to 2, as matrix is \(4, 2\)"):
            latent_directions(torch.zeros(4, 2), count)


# Walks


def test_slerp_goes_along_the_circle_at_an_even_speed() -> None:
    start, end = torch.randn(2, 5, 64, generator=seeded(), dtype=torch.float64)
    radius = start.norm(dim=1, keepdim=True)
    end = radius * F.normalize(end, dim=1)
    path = torch.stack([slerp(start, end, t) for t in torch.linspace(0, 1, 11, dtype=torch.float64)])
    torch.testing.assert_close(path[0], start)
    torch.testing.assert_close(path[-1], end)
    torch.testing.assert_close(path.norm(dim=2, keepdim=True), radius.expand_as(path[..., :1]))
    angles = torch.arccos(F.cosine_similarity(path[1:], path[:-1], dim=2))
    torch.testing.assert_close(angles, angles[:1].expand_as(angles), atol=1e-6, rtol=0)


def test_slerp_between_vectors_on_one_line_is_the_straight_line() -> None:
    vector = torch.randn(3, 8, generator=seeded())
    torch.testing.assert_close(slerp(vector, 2 * vector, 0.5), 1.5 * vector)
    torch.testing.assert_close(slerp(vector, -vector, 0.25), 0.5 * vector)


def test_each_vector_may_have_a_place_of_its_own_on_the_way() -> None:
    start, end = torch.randn(2, 8, 8, generator=seeded(), dtype=torch.float64)
    t = torch.linspace(0, 1, 8, dtype=torch.float64)
    expected = torch.stack([slerp(a, b, place) for a, b, place in zip(start, end, t, strict=True)])
    torch.testing.assert_close(slerp(start, end, t[:, None]), expected)
    for places in (t, t[None]):  # of as many numbers as a vector has: they would go to its coordinates
        with pytest.raises(ValueError, match=r"^t: found shape .*8,?\); expected a number or \(\.\.\., 1\)"):
            slerp(start, end, places)


# Pointing, and weights that have learned nothing


def test_pointing_at_random_scores_the_share_of_the_object() -> None:
    masks = torch.rand(3000, 6, 6, generator=seeded()) < 0.3
    share = masks.float().mean().item()
    assert pointing_accuracy(torch.rand(3000, 6, 6, generator=seeded(1)), masks=masks) == pytest.approx(share, abs=0.03)
    assert pointing_accuracy(torch.zeros(3000, 6, 6), masks=masks) == pytest.approx(share)  # undecided
    assert pointing_accuracy(masks.float(), masks=masks) == 1
    assert pointing_accuracy(1 - masks.float(), masks=masks) == 0


def test_pointing_ignores_the_scale_of_a_map() -> None:
    maps, masks = torch.randn(50, 4, 4, generator=seeded()), torch.rand(50, 4, 4, generator=seeded(1)) < 0.5
    scale = torch.rand(50, 1, 1, generator=seeded(2)) + 0.1
    assert pointing_accuracy(maps, masks=masks) == pointing_accuracy(scale * maps - 3, masks=masks)


def test_maps_that_cannot_point_are_refused() -> None:
    maps, masks = torch.zeros(2, 3, 3), torch.ones(2, 3, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"maps: found shape \(2, 1, 3, 3\); expected \(N, H, W\)"):
        pointing_accuracy(maps[:, None], masks=masks)
    with pytest.raises(ValueError, match=r"masks: found \(1, 3, 3\) torch\.bool; expected \(2, 3, 3\) torch\.bool"):
        pointing_accuracy(maps, masks=masks[:1])
    with pytest.raises(ValueError, match=r"masks: found \(2, 3, 3\) torch\.float32"):
        pointing_accuracy(maps, masks=masks.float())
    with pytest.raises(ValueError, match="maps: found numbers that are not finite"):
        pointing_accuracy(maps / 0, masks=masks)


def test_randomised_weights_are_the_same_numbers_in_another_order(classifier: nn.Module, pictures: Tensor) -> None:
    before = {name: x.clone() for name, x in classifier.state_dict().items()}
    shuffled = randomised(classifier, generator=seeded(0))
    for name, x in classifier.state_dict().items():
        assert torch.equal(x, before[name])  # the model itself stays
    for (name, ours), theirs in zip(shuffled.named_parameters(), classifier.parameters(), strict=True):
        torch.testing.assert_close(ours.flatten().sort().values, theirs.flatten().sort().values)
        assert theirs.unique().numel() == 1 or not torch.equal(ours, theirs), name
    for ours, theirs in zip(shuffled.buffers(), classifier.buffers(), strict=True):
        assert torch.equal(ours, theirs)
    assert not shuffled.training
    assert not torch.allclose(shuffled(pictures), classifier(pictures))
    again = randomised(classifier, generator=seeded(0))
    assert torch.equal(again(pictures), shuffled(pictures))
    assert not torch.equal(randomised(classifier, generator=seeded(1))(pictures), shuffled(pictures))
