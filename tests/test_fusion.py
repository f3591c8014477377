"""Fusions against references written out in NumPy, and what they have in common: masks, gradients, refusals."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan_lib import checkpoint
from mmgan_lib.datasets import interaction_data
from mmgan_lib.encoders.base import masked_mean
from mmgan_lib.fusion import (
    FUSIONS,
    Bilinear,
    Cluster,
    Concat,
    CrossAttention,
    FiLM,
    Fusion,
    Gated,
    LateAverage,
    LowRank,
    Mean,
    Product,
    ProductOfExperts,
    Sum,
    TensorFusion,
    kmeans,
    modality_dropout,
)

ADDITIVE = {"concat", "mean", "sum", "late_average"}  # cannot learn XOR under a linear head; all others have to
BATCH = 6
EXACT = {"rtol": 0, "atol": 1e-10}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def vectors(*dims: int, batch: int = BATCH) -> list[Tensor]:
    return [torch.randn(batch, dim, dtype=torch.float64) for dim in dims]


def sequences(*shapes: tuple[int, int]) -> list[Tensor]:
    return [torch.randn(BATCH, *shape, dtype=torch.float64) for shape in shapes]


def made(cls: type[Fusion], *arguments: object, **options: object) -> Fusion:
    """A fusion in float64 whose parameters are all drawn anew, so that none is zero or one."""
    fusion = cls(*arguments, **options).double()
    for parameter in fusion.parameters():
        nn.init.normal_(parameter)
    return fusion


# The references: NumPy, sample by sample, from the parameters alone


def weights(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


def through(layer: nn.Module, x: np.ndarray) -> np.ndarray:
    if isinstance(layer, nn.Identity):
        return x
    w = weights(layer)
    return np.array([sum(a * b for a, b in zip(row, x, strict=True)) for row in w["weight"]]) + w.get("bias", 0)


def projected(fusion: Fusion, xs: list[np.ndarray]) -> list[np.ndarray]:
    return [through(layer, x) for layer, x in zip(fusion.project, xs, strict=True)]


def sigmoid(t: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-t))


def softmax(t: np.ndarray) -> np.ndarray:
    return np.exp(t) / np.exp(t).sum()


def ones_and(x: np.ndarray) -> np.ndarray:
    return np.concatenate([[1.0], x])


def concat(fusion: Concat, xs: list[np.ndarray]) -> np.ndarray:
    return through(fusion.to_out, np.array([number for x in xs for number in x]))


def mean(fusion: Mean, xs: list[np.ndarray]) -> np.ndarray:
    return sum(projected(fusion, xs)) / len(xs)


def plain_sum(fusion: Sum, xs: list[np.ndarray]) -> np.ndarray:
    return sum(projected(fusion, xs))


def weighted_sum(fusion: Sum, xs: list[np.ndarray]) -> np.ndarray:
    return sum(w * x for w, x in zip(fusion.weight.flatten().tolist(), projected(fusion, xs), strict=True))


def product(fusion: Product, xs: list[np.ndarray]) -> np.ndarray:
    return math.prod(projected(fusion, xs))


def gated_of_two(fusion: Gated, xs: list[np.ndarray]) -> np.ndarray:
    one, two = projected(fusion, xs)
    z = sigmoid(weights(fusion)["gate.weight"] @ np.concatenate([one, two]))
    return z * np.tanh(one) + (1 - z) * np.tanh(two)


def gated_of_many(fusion: Gated, xs: list[np.ndarray]) -> np.ndarray:
    xs, width = projected(fusion, xs), fusion.out_dim
    z = sigmoid(weights(fusion)["gate.weight"] @ np.concatenate(xs))
    return sum(z[m * width : (m + 1) * width] * np.tanh(x) for m, x in enumerate(xs))


def bilinear(fusion: Bilinear, xs: list[np.ndarray]) -> np.ndarray:
    out = through(fusion.linear, np.concatenate(xs))
    for layer, (a, b) in zip(fusion.products, itertools.combinations(xs, 2), strict=True):
        out = out + np.array([a @ w @ b for w in weights(layer)["weight"]])
    return out


def tensor_fusion(fusion: TensorFusion, xs: list[np.ndarray]) -> np.ndarray:
    tensor = np.ones(1)
    for x in xs:
        tensor = np.kron(tensor, ones_and(x))
    return through(fusion.to_out, tensor)


def low_rank(fusion: LowRank, xs: list[np.ndarray]) -> np.ndarray:
    """As the paper defines it: the weight tensor is made from its factors, and meets the tensor of the inputs."""
    w, tensor = weights(fusion), np.ones(1)
    for x in xs:
        tensor = np.kron(tensor, ones_and(x))
    out = w["bias"].copy()
    for i in range(len(w["factors.0"])):
        for o in range(fusion.out_dim):
            weight = np.ones(1)
            for m in range(len(xs)):
                weight = np.kron(weight, w[f"factors.{m}"][i, :, o])
            out[o] += weight @ tensor
    return out


def film(fusion: FiLM, xs: list[np.ndarray]) -> np.ndarray:
    w, condition = weights(fusion)["scale_shift.weight"], np.concatenate(xs[1:])
    gamma, beta = 1 + w[: len(xs[0])] @ condition, w[len(xs[0]) :] @ condition
    return through(fusion.to_out, gamma * xs[0] + beta)


def experts(fusion: ProductOfExperts, xs: list[np.ndarray]) -> np.ndarray:
    answers = [through(expert, x) for expert, x in zip(fusion.experts, xs, strict=True)]
    d = fusion.out_dim
    precision = 1 + sum(np.exp(-a[d:]) for a in answers)
    return sum(np.exp(-a[d:]) * a[:d] for a in answers) / precision


def cluster(fusion: Cluster, xs: list[np.ndarray]) -> np.ndarray:
    x, w, d = np.concatenate(xs), weights(fusion), fusion.out_dim
    density = np.array([np.exp(-0.5 * (x - c) ** 2).prod() for c in w["centroids"]])
    answers = (w["experts.weight"] @ x + w["experts.bias"]).reshape(-1, d)
    return (density / density.sum()) @ answers


def average_logits(fusion: LateAverage, xs: list[np.ndarray]) -> np.ndarray:
    return sum(projected(fusion, xs)) / len(xs)


def average_probabilities(fusion: LateAverage, xs: list[np.ndarray]) -> np.ndarray:
    return np.log(sum(map(softmax, projected(fusion, xs))) / len(xs))


def attention(fusion: CrossAttention, xs: list[np.ndarray]) -> np.ndarray:
    """For states (T_m, D_m), or vectors."""
    xs = [np.atleast_2d(x) for x in xs]
    states = [np.stack([through(layer, row) for row in x]) for layer, x in zip(fusion.project, xs, strict=True)]
    d, pooled = fusion.out_dim, []
    for m, layer in enumerate(fusion.attend):
        w, heads = weights(layer), layer.num_heads
        others = np.concatenate(states[:m] + states[m + 1 :])
        q, k, v = (
            x @ w["in_proj_weight"][i * d : (i + 1) * d].T + w["in_proj_bias"][i * d : (i + 1) * d]
            for i, x in enumerate((states[m], others, others))
        )
        k, v = np.vstack([k, w["bias_k"][0]]), np.vstack([v, w["bias_v"][0]])
        seen = []
        for part in np.split(np.arange(d), heads):
            scores = q[:, part] @ k[:, part].T / math.sqrt(d // heads)
            seen.append(np.stack([softmax(row) @ v[:, part] for row in scores]))
        seen = np.concatenate(seen, axis=1) @ w["out_proj.weight"].T + w["out_proj.bias"]
        pooled.append((states[m] + seen).mean(axis=0))
    return sum(pooled) / len(pooled)


REFERENCES = {
    "concat": (concat, Concat, [3, 5, 4], 6, {}),
    "concat, raw": (concat, Concat, [3, 5, 4], None, {}),
    "concat of one": (concat, Concat, [3], 6, {}),
    "mean": (mean, Mean, [3, 5, 4], 6, {}),
    "mean, raw": (mean, Mean, [4, 4], None, {}),
    "sum": (plain_sum, Sum, [3, 5, 4], 6, {}),
    "weighted sum": (weighted_sum, Sum, [3, 5, 4], 6, {"weighted": True}),
    "weighted sum, raw": (weighted_sum, Sum, [4, 4], None, {"weighted": True}),
    "product": (product, Product, [3, 5, 4], 6, {}),
    "product, raw": (product, Product, [4, 4], None, {}),
    "gated, two": (gated_of_two, Gated, [3, 5], 6, {}),
    "gated, two, raw": (gated_of_two, Gated, [4, 4], None, {}),
    "gated, three": (gated_of_many, Gated, [3, 5, 4], 6, {}),
    "bilinear, two": (bilinear, Bilinear, [3, 5], 6, {}),
    "bilinear, three": (bilinear, Bilinear, [3, 5, 4], 6, {}),
    "tensor": (tensor_fusion, TensorFusion, [3, 5, 4], 6, {}),
    "tensor, raw": (tensor_fusion, TensorFusion, [3, 5, 4], None, {}),
    "low rank, two": (low_rank, LowRank, [3, 5], 6, {}),
    "low rank, three": (low_rank, LowRank, [3, 5, 4], 6, {"rank": 3}),
    "film, two": (film, FiLM, [3, 5], 6, {}),
    "film, three, raw": (film, FiLM, [3, 5, 4], None, {}),
    "product of experts": (experts, ProductOfExperts, [3, 5, 4], 6, {}),
    "cluster": (cluster, Cluster, [3, 5, 4], 6, {"centroids": 7}),
    "average of logits": (average_logits, LateAverage, [3, 5, 4], 6, {}),
    "average of logits, raw": (average_logits, LateAverage, [4, 4], None, {}),
    "average of probabilities": (average_probabilities, LateAverage, [3, 5, 4], 6, {"of_probabilities": True}),
    "attention to vectors": (attention, CrossAttention, [3, 5, 4], 8, {}),
    "attention, raw": (attention, CrossAttention, [4, 4], None, {"heads": 1}),
}


@pytest.mark.parametrize(("reference", "cls", "dims", "out_dim", "options"), REFERENCES.values(), ids=REFERENCES)
def test_a_fusion_is_its_formula(reference, cls, dims, out_dim, options) -> None:
    fusion, inputs = made(cls, dims, out_dim, **options), vectors(*dims)
    expected = [reference(fusion, [x[b].numpy() for x in inputs]) for b in range(BATCH)]
    found = fusion(inputs)
    assert found.shape == (BATCH, fusion.out_dim)
    torch.testing.assert_close(found, torch.tensor(np.stack(expected)), **EXACT)


def test_attention_between_sequences_of_different_lengths_is_its_formula() -> None:
    fusion, inputs = made(CrossAttention, [3, 5, 4], 8, heads=2), sequences((7, 3), (2, 5), (1, 4))
    expected = [attention(fusion, [x[b].numpy() for x in inputs]) for b in range(BATCH)]
    torch.testing.assert_close(fusion(inputs), torch.tensor(np.stack(expected)), **EXACT)


def test_the_product_of_experts_is_the_product_of_their_densities() -> None:
    """Mean and variance by integration on a grid, the normalising constant included."""
    fusion, inputs = made(ProductOfExperts, [3, 5], 2), vectors(3, 5, batch=3)
    with torch.no_grad():
        for expert in fusion.experts:
            expert.weight[2:] *= 0.3  # variances that the grid resolves
        mean, variance = fusion.posterior(inputs)
        answers = torch.stack([expert(x) for expert, x in zip(fusion.experts, inputs, strict=True)])
    grid = torch.linspace(-40, 40, 200_001, dtype=torch.float64)
    for b, d in itertools.product(range(3), range(2)):
        log_density = -0.5 * grid.square()
        for mu, log_var in zip(answers[:, b, d], answers[:, b, 2 + d], strict=True):
            log_density = log_density - 0.5 * (grid - mu).square() / log_var.exp()
        density = (log_density - log_density.max()).exp()
        density = density / density.sum()
        found = (density * grid).sum()
        assert mean[b, d].item() == pytest.approx(found.item(), abs=1e-8)
        assert variance[b, d].item() == pytest.approx((density * (grid - found).square()).sum().item(), abs=1e-8)


@pytest.mark.parametrize("dims", [[3, 5], [2, 3, 4], [4]])
def test_enough_rank_reproduces_tensor_fusion_with_a_linear_layer(dims: list[int]) -> None:
    """Each entry of all axes but the last is a term of its own: unit vectors there, the dense weights in the last."""
    dense, inputs = made(TensorFusion, dims, 6), vectors(*dims)
    lengths = [1 + dim for dim in dims]
    factored = made(LowRank, dims, 6, rank=math.prod(lengths[:-1]))
    with torch.no_grad():
        places = list(itertools.product(*map(range, lengths[:-1])))
        for m, length in enumerate(lengths[:-1]):
            units = torch.eye(length, dtype=torch.float64)[[place[m] for place in places]]
            factored.factors[m].copy_(units[..., None].expand(-1, -1, 6))
        factored.factors[-1].copy_(dense.to_out.weight.T.reshape(len(places), lengths[-1], 6))
        factored.bias.copy_(dense.to_out.bias)
    torch.testing.assert_close(factored(inputs), dense(inputs), **EXACT)
    assert len(list(factored.parameters())) == len(dims) + 1


@pytest.mark.parametrize("out_dim", [None, 7])
def test_film_starts_as_the_identity(out_dim: int | None) -> None:
    x, condition = vectors(3, 5)
    fusion = FiLM([3, 5], out_dim).double()
    assert torch.equal(fusion([x, condition]), fusion.to_out(x))


# What all have in common


def all_fusions(modalities: int = 3) -> list:
    variants = [(name, {}) for name in FUSIONS]
    variants += [("sum", {"weighted": True}), ("late_average", {"of_probabilities": True})]
    dims = [3, 5, 4][:modalities]
    return [pytest.param(name, dims, options, id=" ".join([name, *options])) for name, options in variants]


def test_every_fusion_is_held_to_a_formula() -> None:
    assert set(FUSIONS.values()) == {cls for _, cls, *_ in REFERENCES.values()}


@pytest.mark.parametrize("cls", FUSIONS.values())
def test_a_strategy_is_one_step_from_the_base_and_replaces_nothing_but_the_formula(cls: type[Fusion]) -> None:
    """So masks are handled in one place, and no method that it inherits is out of reach."""
    assert cls.__bases__ == (Fusion,)
    methods = {name for name, value in vars(Fusion).items() if callable(value)}
    assert methods & vars(cls).keys() <= {"__init__", "fuse"}


class Longest(Fusion):
    """The longest of the vectors that are there: what a reader's own strategy may look like."""

    aligned = True

    def fuse(self, inputs: list[Tensor], mask: Tensor) -> Tensor:
        x = torch.stack(inputs, dim=1)
        return x[torch.arange(len(x)), x.norm(dim=2).argmax(dim=1)]


def test_a_strategy_of_ones_own_needs_no_more_than_its_formula() -> None:
    inputs, mask = vectors(4, 4), torch.tensor([[True, False]] * BATCH)
    assert torch.equal(Longest([4, 4])([inputs[0], 9 * inputs[0]]), 9 * inputs[0])
    fusion = made(Longest, [4, 4], 6)
    assert torch.equal(fusion([inputs[0], 9 * inputs[0]], mask), fusion.project[0](inputs[0]))
    assert message(lambda: Longest([4, 5])).startswith("out_dim is None for Longest")


@pytest.mark.parametrize(("name", "dims", "options"), all_fusions() + all_fusions(2))
def test_what_stands_in_a_masked_slot_has_no_effect(name: str, dims: list[int], options: dict) -> None:
    patterns = torch.tensor(list(itertools.product([True, False], repeat=len(dims))))  # all missing is among them
    fusion, inputs = made(FUSIONS[name], dims, 8, **options), vectors(*dims, batch=len(patterns))
    outcomes = []
    for filler in (0.0, 1e6, math.nan, math.inf):
        filled = [x.masked_fill(~patterns[:, m, None], filler).requires_grad_() for m, x in enumerate(inputs)]
        fusion.zero_grad()
        found = fusion(filled, patterns)
        found.square().sum().backward()
        for m, x in enumerate(filled):
            assert not x.grad[~patterns[:, m]].any()
            assert x.grad[:, 0][patterns[:, m]].any()
        outcomes.append([found.detach(), *(x.grad for x in filled), *(p.grad for p in fusion.parameters())])
        assert all(part.isfinite().all() for part in outcomes[-1])
    for other in outcomes[1:]:
        assert all(torch.equal(a, b) for a, b in zip(outcomes[0], other, strict=True))


@pytest.mark.parametrize(("name", "dims", "options"), all_fusions())
def test_a_mask_without_a_gap_is_no_mask(name: str, dims: list[int], options: dict) -> None:
    fusion, inputs = made(FUSIONS[name], dims, 8, **options), vectors(*dims)
    assert torch.equal(fusion(inputs), fusion(inputs, torch.ones(BATCH, 3, dtype=torch.bool)))


@pytest.mark.parametrize(("name", "dims", "options"), all_fusions())
def test_each_sample_is_fused_by_itself(name: str, dims: list[int], options: dict) -> None:
    """So a batch of 1 gives what the sample gives among others, and the order of a batch does not matter."""
    fusion, inputs, mask = made(FUSIONS[name], dims, 8, **options), vectors(*dims), torch.rand(BATCH, 3) > 0.3
    together = fusion(inputs, mask)
    for b in range(BATCH):
        alone = fusion([x[b : b + 1] for x in inputs], mask[b : b + 1])
        torch.testing.assert_close(alone, together[b : b + 1], **EXACT)


@pytest.mark.parametrize(("name", "dims", "options"), all_fusions() + all_fusions(2))
def test_every_parameter_learns(name: str, dims: list[int], options: dict) -> None:
    fusion, target = FUSIONS[name](dims, 8, **options).double(), torch.randn(BATCH, 8, dtype=torch.float64)
    F.mse_loss(fusion(vectors(*dims)), target).backward()
    assert [n for n, p in fusion.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(("name", "dims", "options"), all_fusions())
def test_every_parameter_is_saved(name: str, dims: list[int], options: dict, tmp_path) -> None:
    first, second = (made(FUSIONS[name], dims, 8, **options) for _ in range(2))
    inputs = vectors(*dims)
    if list(first.parameters()):
        assert not torch.allclose(first(inputs), second(inputs))
    checkpoint.save(tmp_path, step=1, models={"fusion": first})
    checkpoint.load(checkpoint.latest(tmp_path), {"fusion": second})
    assert torch.equal(first(inputs), second(inputs))


@pytest.mark.parametrize("name", FUSIONS)
def test_a_fusion_stays_as_it_was_made_in_float32(name: str) -> None:
    fusion = FUSIONS[name]([3, 5, 4], 8)
    assert fusion([x.float() for x in vectors(3, 5, 4)]).dtype == torch.float32
    assert fusion.out_dim == 8


# The order of modalities, and of states


@pytest.mark.parametrize("options", [{"cls": Mean}, {"cls": Sum}, {"cls": Product}, {"cls": LateAverage}])
def test_without_parameters_the_order_of_modalities_does_not_matter(options: dict) -> None:
    fusion, inputs, mask = options["cls"]([4, 4, 4]), vectors(4, 4, 4), torch.rand(BATCH, 3) > 0.3
    assert list(fusion.parameters()) == []
    for order in itertools.permutations(range(3)):
        turned = fusion([inputs[m] for m in order], mask[:, list(order)])
        torch.testing.assert_close(turned, fusion(inputs, mask), **EXACT)


@pytest.mark.parametrize(
    ("cls", "lists", "options"),
    [
        (Mean, ["project"], {}),
        (Product, ["project"], {}),
        (LateAverage, ["project"], {"of_probabilities": True}),
        (LowRank, ["factors"], {}),
        (ProductOfExperts, ["experts"], {}),
        (CrossAttention, ["project", "attend"], {}),
    ],
)
def test_modalities_that_move_with_their_parameters_fuse_to_the_same(cls, lists, options) -> None:
    fusion, inputs, mask = made(cls, [3, 5, 4], 8, **options), vectors(3, 5, 4), torch.rand(BATCH, 3) > 0.3
    for order in itertools.permutations(range(3)):
        turned = copy.deepcopy(fusion)
        turned.dims = tuple(fusion.dims[m] for m in order)
        for name in lists:
            kind = type(getattr(fusion, name))
            setattr(turned, name, kind([getattr(fusion, name)[m] for m in order]))
        found = turned([inputs[m] for m in order], mask[:, list(order)])
        torch.testing.assert_close(found, fusion(inputs, mask), **EXACT)


def test_a_tensor_of_exchanged_modalities_is_transposed() -> None:
    a, b = vectors(3, 5)
    one, other = TensorFusion([3, 5])([a, b]), TensorFusion([5, 3])([b, a])
    assert torch.equal(one.reshape(BATCH, 4, 6), other.reshape(BATCH, 6, 4).mT)


def test_exchanging_two_gated_modalities_turns_the_gate_round() -> None:
    a, b = vectors(4, 4)
    one = made(Gated, [4, 4])
    other = copy.deepcopy(one)
    other.gate.weight.data = -torch.cat(one.gate.weight.chunk(2, dim=1)[::-1], dim=1)
    torch.testing.assert_close(other([b, a]), one([a, b]), **EXACT)


def test_the_order_matters_to_concat() -> None:
    a, b = vectors(4, 4)
    fusion = Concat([4, 4])
    assert torch.equal(fusion([b, a]).roll(4, dims=1), fusion([a, b]))
    assert not torch.equal(fusion([b, a]), fusion([a, b]))


def test_the_order_of_states_does_not_matter() -> None:
    fusion, (a, b) = made(CrossAttention, [3, 5], 8), sequences((7, 3), (4, 5))
    masks = [torch.rand(BATCH, 7) > 0.3, torch.rand(BATCH, 4) > 0.3]
    i, j = torch.randperm(7), torch.randperm(4)
    turned = fusion([a[:, i], b[:, j]], [masks[0][:, i], masks[1][:, j]])
    torch.testing.assert_close(turned, fusion([a, b], masks), **EXACT)


# What a strategy does about a missing modality


def without_second(fusion: Fusion) -> Tensor:
    return fusion(INPUTS, torch.tensor([[True, False]] * BATCH))


INPUTS = [torch.linspace(-2, 3, BATCH * 4, dtype=torch.float64).reshape(BATCH, 4) for _ in range(2)]


def test_zeros_stand_for_what_is_missing() -> None:
    fusions = [Concat([4, 4]), Sum([4, 4]), made(Gated, [4, 4]), made(Bilinear, [4, 4], 6), TensorFusion([4, 4])]
    fusions += [made(LowRank, [4, 4], 6), made(FiLM, [4, 4])]
    for fusion in fusions:
        torch.testing.assert_close(without_second(fusion), fusion([INPUTS[0], torch.zeros_like(INPUTS[1])]), **EXACT)


@pytest.mark.parametrize("cls", [Mean, Sum, Product, LateAverage])
def test_alone_a_modality_is_fused_to_itself(cls: type[Fusion]) -> None:
    assert torch.equal(without_second(cls([4, 4])), INPUTS[0])


def test_the_tensor_of_the_others_is_left() -> None:
    tensor = without_second(TensorFusion([4, 4])).reshape(BATCH, 5, 5)
    assert torch.equal(tensor[:, :, 0], TensorFusion([4])(INPUTS[:1]))
    assert not tensor[:, :, 1:].any()


def test_without_a_condition_film_changes_nothing() -> None:
    assert torch.equal(without_second(made(FiLM, [4, 4])), INPUTS[0])


def test_a_missing_expert_leaves_the_product_of_the_others() -> None:
    fusion = made(ProductOfExperts, [4, 4], 3)
    alone = ProductOfExperts([4], 3).double()
    alone.experts[0] = fusion.experts[0]
    torch.testing.assert_close(without_second(fusion), alone(INPUTS[:1]), **EXACT)
    mean, variance = fusion.posterior(INPUTS, torch.zeros(BATCH, 2, dtype=torch.bool))
    assert torch.equal(mean, torch.zeros_like(mean))  # the unit Gaussian
    assert torch.equal(variance, torch.ones_like(variance))
    sure = [fusion.posterior(INPUTS, torch.tensor([[True, m]] * BATCH))[1] for m in (True, False)]
    assert (sure[0] < sure[1]).all()


def test_experts_may_be_as_sure_as_they_like() -> None:
    fusion = made(ProductOfExperts, [4, 4], 3)
    mean, variance = fusion.posterior([1000 * x for x in INPUTS])
    assert mean.isfinite().all()
    assert ((variance >= 0) & (variance <= 1)).all()


def test_clusters_are_told_by_what_is_there() -> None:
    fusion = made(Cluster, [4, 4], 3, centroids=5)
    alone = Cluster([4], 3, centroids=fusion.centroids[:, :4].detach()).double()
    mask = torch.tensor([[True, False]] * BATCH)
    torch.testing.assert_close(fusion.assignment(INPUTS, mask), alone.assignment(INPUTS[:1]), **EXACT)
    nothing = fusion.assignment(INPUTS, torch.zeros_like(mask))
    torch.testing.assert_close(nothing, torch.full_like(nothing, 1 / 5), **EXACT)


def test_probabilities_are_averaged_over_those_who_answer() -> None:
    fusion = made(LateAverage, [4, 4], 3, of_probabilities=True)
    answer = fusion.project[0](INPUTS[0]).log_softmax(dim=1)
    torch.testing.assert_close(without_second(fusion), answer, **EXACT)
    nobody = fusion(INPUTS, torch.zeros(BATCH, 2, dtype=torch.bool))
    torch.testing.assert_close(nobody, torch.full_like(nobody, -math.log(3)), **EXACT)


def test_probabilities_that_are_almost_zero_have_a_logarithm() -> None:
    extreme = torch.tensor([[2000.0, 0.0]])
    assert torch.equal(LateAverage([2, 2], of_probabilities=True)([extreme, extreme]), torch.tensor([[0.0, -2000.0]]))


# Attention


def test_padding_is_neither_seen_nor_averaged() -> None:
    fusion, inputs = made(CrossAttention, [3, 5], 8), sequences((4, 3), (6, 5))
    masks = [torch.ones(BATCH, 4, dtype=torch.bool), torch.ones(BATCH, 6, dtype=torch.bool)]
    padded = [F.pad(x, (0, 0, 0, 3), value=math.nan).requires_grad_() for x in inputs]
    found = fusion(padded, [F.pad(mask, (0, 3)) for mask in masks])
    torch.testing.assert_close(found, fusion(inputs), **EXACT)
    found.sum().backward()
    for x, length in zip(padded, (4, 6), strict=True):
        assert x.grad[:, :length].abs().amin() > 0
        assert not x.grad[:, length:].any()


def test_a_sequence_without_a_state_is_a_missing_modality() -> None:
    fusion, inputs = made(CrossAttention, [3, 5, 4], 8), sequences((4, 3), (6, 5), (2, 4))
    present = torch.tensor(list(itertools.product([True, False], repeat=3)))[:BATCH]
    masks = [present[:, m, None].expand(-1, x.shape[1]) for m, x in enumerate(inputs)]
    assert torch.equal(fusion(inputs, present), fusion(inputs, masks))
    two = CrossAttention([3, 4], 8).double()
    two.project, two.attend = (nn.ModuleList([part[0], part[2]]) for part in (fusion.project, fusion.attend))
    without = fusion(inputs, torch.tensor([[True, False, True]] * BATCH))
    torch.testing.assert_close(without, two([inputs[0], inputs[2]]), **EXACT)


def test_alone_a_modality_sees_the_learned_nothing() -> None:
    fusion = made(CrossAttention, [4, 4], 8)
    states = fusion.project[0](INPUTS[0])
    layer = fusion.attend[0]
    expected = masked_mean(states[:, None], torch.ones(BATCH, 1, dtype=torch.bool)) + layer.out_proj(layer.bias_v[0])
    torch.testing.assert_close(without_second(fusion), expected, **EXACT)


# Clusters


def test_kmeans_finds_the_clusters_and_the_hard_variant_uses_them() -> None:
    from sklearn.cluster import KMeans

    data = interaction_data("synergistic", 400, dim=9, noise=0.2, generator=torch.Generator().manual_seed(0))
    centroids = kmeans(data.features, 4)
    fusion = Cluster([9, 9], 5, centroids=centroids, hard=True)
    x = torch.cat(data.features, dim=1)
    p = fusion.assignment(data.features)
    oracle = KMeans(4, init=centroids.numpy(), n_init=1, max_iter=1).fit(x.numpy())
    assert torch.equal(p.argmax(dim=1), torch.from_numpy(oracle.predict(x.numpy())).long())
    assert torch.equal(p.sum(dim=1), torch.ones(400))
    assert set(p.unique().tolist()) == {0.0, 1.0}
    states = 2 * data.states[:, 0] + data.states[:, 1]
    pairs = torch.stack([states, p.argmax(dim=1)], dim=1).unique(dim=0)
    assert len(pairs) == 4  # each cluster is one of the four combinations
    for k in range(4):
        of_cluster = p.argmax(dim=1) == k
        torch.testing.assert_close(centroids[k], x[of_cluster].mean(dim=0))
        w, b = (part.unflatten(0, (4, 5))[k] for part in (fusion.experts.weight, fusion.experts.bias))
        expected = x[of_cluster] @ w.T + b
        torch.testing.assert_close(fusion(data.features)[of_cluster], expected)
    assert torch.equal(kmeans(data.features, 4), centroids)
    assert not fusion.centroids.requires_grad


def test_centroids_from_kmeans_are_where_the_soft_variant_begins() -> None:
    centroids = torch.randn(3, 8)
    fusion = Cluster([4, 4], 5, centroids=centroids)
    assert torch.equal(fusion.centroids, centroids)
    fusion(vectors_float(4, 4)).sum().backward()
    assert fusion.centroids.grad.any()
    with torch.no_grad():
        fusion.centroids.zero_()
    assert centroids.any()  # a copy


def vectors_float(*dims: int) -> list[Tensor]:
    return [x.float() for x in vectors(*dims)]


# What they can learn


@pytest.mark.parametrize("name", FUSIONS)
def test_what_can_learn_xor_and_what_cannot(name: str) -> None:
    """What only adds cannot tell better than a coin; the others learn it within seconds."""
    generator = torch.Generator().manual_seed(1)
    train = interaction_data("synergistic", 256, noise=0.5, generator=generator)
    test = interaction_data("synergistic", 1000, noise=0.5, generator=generator)
    if name == "late_average":
        fusion, head = LateAverage([16, 16], 2), nn.Identity()
    else:
        fusion, head = FUSIONS[name]([16, 16], 16), nn.Linear(16, 2)
    optimizer = torch.optim.Adam([*fusion.parameters(), *head.parameters()], lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(head(fusion(train.features)), train.label).backward()
        optimizer.step()
    with torch.no_grad():
        accuracy = (head(fusion(test.features)).argmax(dim=1) == test.label).float().mean().item()
    if name in ADDITIVE:
        assert 0.4 < accuracy < 0.6
    else:
        assert accuracy > 0.95


# Modality dropout


@pytest.mark.parametrize("p", [0.0, 0.3, 0.8, 1.0])
def test_modality_dropout_never_drops_all(p: float) -> None:
    mask = torch.tensor(list(itertools.product([True, False], repeat=3))).repeat(500, 1)
    kept = modality_dropout(mask, p)
    assert not (kept & ~mask).any()  # what is missing stays missing
    assert torch.equal(kept.any(dim=1), mask.any(dim=1))
    if p == 0:
        assert torch.equal(kept, mask)
    if p == 1:
        assert torch.equal(kept.sum(dim=1), mask.any(dim=1).long())


@pytest.mark.parametrize(("modalities", "p"), [(1, 0.5), (2, 0.5), (2, 1.0), (3, 0.4)])
def test_modality_dropout_drops_as_often_as_it_says(modalities: int, p: float) -> None:
    """p, less the share of the p^M cases in which all would go and this one is left: p - p^M / M."""
    n = 200_000
    mask = torch.ones(n, modalities, dtype=torch.bool)
    dropped = 1 - modality_dropout(mask, p, generator=torch.Generator().manual_seed(3)).double().mean(dim=0)
    expected = p - p**modalities / modalities
    assert dropped.tolist() == pytest.approx([expected] * modalities, abs=5 * 0.5 / math.sqrt(n))


def test_modality_dropout_draws_from_the_generator_alone() -> None:
    mask = torch.ones(50, 3, dtype=torch.bool)
    before = torch.get_rng_state()
    one, two = (modality_dropout(mask, 0.5, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(before, torch.get_rng_state())
    assert mask.all()


@pytest.mark.parametrize("p", [-0.1, 1.5, math.nan])
def test_modality_dropout_wants_a_probability(p: float) -> None:
    with pytest.raises(ValueError, match=r"^p is .*; expected a probability from 0 to 1\.$"):
        modality_dropout(torch.ones(2, 2, dtype=torch.bool), p)


@pytest.mark.parametrize(
    ("mask", "found"), [(torch.ones(4, 2), r"\(4, 2\) torch.float32"), (torch.ones(4).bool(), r"\(4,\) torch.bool")]
)
def test_modality_dropout_wants_a_mask(mask: Tensor, found: str) -> None:
    with pytest.raises(ValueError, match=rf"^mask: found {found}; expected \(B, M\) torch\.bool\.$"):
        modality_dropout(mask, 0.5)


# What is refused


def message(call) -> str:
    with pytest.raises(ValueError, match=r"\.$") as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("name", FUSIONS)
def test_inputs_that_do_not_fit_are_refused(name: str) -> None:
    fusion = FUSIONS[name]([4, 4], 8)
    a, b = vectors_float(4, 4)
    said = message(lambda: fusion([a]))
    assert said == "inputs: found 1; expected 2, one for each modality."
    assert message(lambda: fusion([a, b, b])).startswith("inputs: found 3; expected 2")
    wrong = message(lambda: fusion([a, b[:, :3]]))
    short = message(lambda: fusion([a, b[:-1]]))
    if name == "cross_attention":
        assert wrong == "inputs[1]: found shape (6, 1, 3); expected (6, T, 4)."
        assert short == "inputs[1]: found shape (5, 1, 4); expected (6, T, 4)."
    else:
        assert wrong == "inputs[1]: found shape (6, 3); expected (6, 4)."
        assert short == "inputs[1]: found shape (5, 4); expected (6, 4)."
    assert message(lambda: fusion([a[:0], b[:0]])).startswith("inputs[0]: found shape (0, ")
    mask = torch.ones(6, 3, dtype=torch.bool)
    assert message(lambda: fusion([a, b], mask)) == "mask: found (6, 3) torch.bool; expected (6, 2) torch.bool."
    assert message(lambda: fusion([a, b], mask[:, :2].float())).startswith("mask: found (6, 2) torch.float32;")


def test_masks_of_sequences_that_do_not_fit_are_refused() -> None:
    fusion, inputs = CrossAttention([3, 5], 8).double(), sequences((4, 3), (6, 5))
    said = message(lambda: fusion(inputs, [torch.ones(BATCH, 4, dtype=torch.bool)] * 2))
    assert said == "mask: found (6, 4) torch.bool, (6, 4) torch.bool; expected (6, 4), (6, 6), all torch.bool."
    assert "found (6, 4) torch.bool; expected" in message(
        lambda: fusion(inputs, [torch.ones(BATCH, 4, dtype=torch.bool)])
    )


@pytest.mark.parametrize("cls", [Bilinear, LowRank, ProductOfExperts, Cluster])
def test_out_dim_has_to_be_told_where_there_is_no_raw_vector(cls: type[Fusion]) -> None:
    said = message(lambda: cls([4, 4]))
    assert said == f"out_dim is None for {cls.__name__}, which has no raw vector here: expected at least 1."


@pytest.mark.parametrize("cls", [Mean, Sum, Product, Gated, LateAverage, CrossAttention])
def test_vectors_of_different_lengths_need_an_out_dim(cls: type[Fusion]) -> None:
    assert message(lambda: cls([4, 8])).startswith(f"out_dim is None for {cls.__name__}, which has no raw vector here")
    assert cls([4, 8], 4).out_dim == 4


@pytest.mark.parametrize("name", FUSIONS)
def test_lengths_that_are_none_are_refused(name: str) -> None:
    cls = FUSIONS[name]
    for dims in ([], [4, 0]):
        assert message(lambda dims=dims: cls(dims, 8)).startswith(f"dims is {dims}; {cls.__name__} expected")
    assert message(lambda: cls([4, 4], 0)) == f"out_dim is 0 for {cls.__name__}, expected at least 1."
    if cls.least == 2:
        assert message(lambda: cls([4], 8)).endswith("expected 2 or more lengths of at least 1.")
    else:
        assert cls([4], 8)(vectors_float(4)).shape == (BATCH, 8)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LowRank([4, 4], 8, rank=0), "rank is 0; expected at least 1."),
        (lambda: CrossAttention([4, 4], 6), "heads is 4; expected a number that divides out_dim, 6."),
        (lambda: CrossAttention([4, 4], 6, heads=0), "heads is 0; expected a number that divides out_dim, 6."),
        (lambda: Cluster([4, 4], 6, centroids=0), "centroids is 0; expected at least 1."),
        (
            lambda: Cluster([4, 4], 6, hard=True),
            "centroids is 8; expected centroids from kmeans, because hard ones cannot be learned.",
        ),
        (
            lambda: Cluster([4, 4], 6, centroids=torch.zeros(3, 7)),
            "centroids: found shape (3, 7); expected (K, 8).",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(make, said: str) -> None:
    assert message(make) == said


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", FUSIONS)
def test_on_a_gpu_the_result_stays_the_same(name: str) -> None:
    fusion, inputs, mask = made(FUSIONS[name], [3, 5, 4], 8), vectors(3, 5, 4), torch.rand(BATCH, 3) > 0.3
    expected = fusion(inputs, mask)
    found = fusion.cuda()([x.cuda() for x in inputs], mask.cuda())
    torch.testing.assert_close(found.cpu(), expected)
