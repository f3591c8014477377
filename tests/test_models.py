"""The multimodal model: what it learns, what it sees of samples that lack a modality, and what it refuses."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan_lib.datasets import Batch, Loader
from mmgan_lib.encoders import AudioEncoder, ImageEncoder, LogMel, TextEncoder, Vocabulary
from mmgan_lib.encoders.base import masked_mean
from mmgan_lib.fusion import FUSIONS, Concat, CrossAttention, Fusion, LateAverage, Product
from mmgan_lib.gan import Generator
from mmgan_lib.metrics import classification_report
from mmgan_lib.models import MultimodalModel
from mmgan_lib.training import fit

CAPTIONS = ["a red disc", "a very small blue star", "a ring", "a square in the middle"]
WORDS = Vocabulary.of(CAPTIONS)
MODALITIES = ("image", "tokens", "audio")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def some(n: int = 8) -> Batch:
    tokens, mask = WORDS.encode([CAPTIONS[i % 4] for i in range(n)])
    image, audio = torch.rand(n, 3, 16, 16) * 2 - 1, 20 * torch.randn(n, 1, 16, 24) - 40
    return Batch(image=image, tokens=tokens, token_mask=mask, audio=audio, label=torch.arange(n) % 4)


def encoders(width: int = 8) -> dict[str, nn.Module]:
    image, text = ImageEncoder(width, width=4), TextEncoder(WORDS, width, width=8)
    return {"image": image, "tokens": text, "audio": AudioEncoder(width, mels=16, width=4)}


def model(fusion: Fusion | None = None, **options: float) -> MultimodalModel:
    fusion = fusion or Product([8, 8, 8], 8)
    return MultimodalModel(encoders(), fusion, nn.Linear(fusion.out_dim, 4), **options)


def masked(batch: Batch, present: Tensor, filler: float) -> Batch:
    """The batch with this in the place of what is missing."""

    def fill(x: Tensor, m: int) -> Tensor:
        return x.masked_fill(~present[:, m].reshape(-1, *[1] * (x.ndim - 1)), filler)

    tokens = batch.tokens.masked_fill(~present[:, 1, None], 10**6)  # no word has this number
    return batch.replace(image=fill(batch.image, 0), tokens=tokens, audio=fill(batch.audio, 2), present=present)


# What it computes


def test_it_is_head_of_fusion_of_encoders() -> None:
    network, batch = model().eval(), some()
    e = network.encoders
    vectors = [e["image"](batch.image), e["tokens"](batch.tokens, batch.token_mask), e["audio"](batch.audio)]
    assert torch.equal(network.represent(batch), network.fusion(vectors))
    assert torch.equal(network(batch), network.head(network.fusion(vectors)))


def test_a_fusion_of_sequences_is_given_states_and_their_masks() -> None:
    network, batch = model(CrossAttention([8, 8, 8], 8)).eval(), some()
    e = network.encoders
    pairs = [e["image"].sequence(batch.image), e["tokens"].sequence(batch.tokens, batch.token_mask)]
    states, masks = zip(*pairs, e["audio"].sequence(batch.audio), strict=True)
    assert [x.shape[1] for x in states] == [4, 7, 3]
    assert torch.equal(network.represent(batch), network.fusion(states, masks))


def test_without_a_head_the_shared_vector_is_the_answer() -> None:
    network, batch = MultimodalModel(encoders(), LateAverage([8, 8, 8], 4)).eval(), some()
    assert torch.equal(network(batch), network.represent(batch))
    assert network(batch).shape == (8, 4)


@pytest.mark.parametrize("name", FUSIONS)
def test_every_weight_learns(name: str) -> None:
    network, batch = model(FUSIONS[name]([8, 8, 8], 8)), some()
    if name == "film":
        nn.init.normal_(network.fusion.scale_shift.weight)  # at zero, no gradient gets through to the conditions
    F.cross_entropy(network(batch), batch.label).backward()
    assert [n for n, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@pytest.mark.parametrize("name", FUSIONS)
def test_a_batch_of_one_is_enough(name: str) -> None:
    network, batch = model(FUSIONS[name]([8, 8, 8], 8)).eval(), some()
    torch.testing.assert_close(network(batch[2]), network(batch)[2:3], rtol=1e-4, atol=1e-5)


# What a sample lacks

PRESENT = torch.tensor([[True, True, True], [True, False, True], [False, True, False], [False, False, False]] * 2)


@pytest.mark.parametrize("name", ["concat", "product", "gated", "cross_attention", "product_of_experts"])
def test_what_stands_in_a_missing_modality_has_no_effect(name: str) -> None:
    """Not on the answer, nor on a gradient, nor on the statistics of batch normalisation."""
    first, second = model(FUSIONS[name]([8, 8, 8], 8)), model(FUSIONS[name]([8, 8, 8], 8))
    second.load_state_dict(first.state_dict())
    batch, answers = some(), []
    for network, filler in ((first, math.nan), (second, 0.5)):
        answers.append(network(masked(batch, PRESENT, filler)))
        F.cross_entropy(answers[-1], batch.label).backward()
    assert answers[0].isfinite().all()
    assert torch.equal(*answers)
    ours, theirs = dict(first.named_parameters()), dict(second.named_parameters())
    assert all(torch.equal(weight.grad, theirs[key].grad) for key, weight in ours.items())
    assert all(torch.equal(tensor, second.state_dict()[key]) for key, tensor in first.state_dict().items())


def test_an_encoder_reads_only_those_who_have_its_modality() -> None:
    network, batch = model(Concat([8, 8, 8])), some()
    has, seen = PRESENT[:, 0], []
    network.encoders["image"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(masked(batch, PRESENT, math.nan))
    assert torch.equal(seen[0], batch.image[has])
    shared = network.eval().represent(masked(batch, PRESENT, math.nan))
    torch.testing.assert_close(shared[has, :8], network.encoders["image"](batch.image[has]))
    assert not shared[~has, :8].any()


@pytest.mark.parametrize("name", ["concat", "cross_attention"])
def test_a_field_that_no_sample_has_can_be_left_out(name: str) -> None:
    network, batch = model(FUSIONS[name]([8, 8, 8], 8)).eval(), some()
    present = torch.tensor([[True, True, False]] * 8)
    without = batch.replace(audio=None, present=present)
    assert torch.equal(network(without), network(batch.replace(present=present)))


class Length(nn.Module):
    """Texts → the number of their letters."""

    def forward(self, texts: tuple[str, ...]) -> Tensor:
        return torch.tensor([[float(len(text))] for text in texts])


def test_texts_alone_are_enough() -> None:
    assert MultimodalModel({"text": Length()}, Concat([1]))(Batch(text=("red", "a star"))).tolist() == [[3], [6]]


def test_a_modality_of_any_name_is_encoded_with_its_mask() -> None:
    """A point cloud, whose mask tells how many points there are."""

    class Centre(nn.Module):
        def forward(self, points: Tensor, mask: Tensor) -> Tensor:
            return masked_mean(points, mask)

    points, mask = torch.randn(5, 4, 3), torch.rand(5, 4) < 0.7
    batch = Batch(points=points, point_mask=mask, depth=torch.randn(5, 2))
    network = MultimodalModel({"points": Centre(), "depth": nn.Identity()}, Concat([3, 2]))
    torch.testing.assert_close(network(batch), torch.cat([masked_mean(points, mask), batch.depth], dim=1))


@pytest.mark.parametrize("fusion", [Product, CrossAttention])
def test_a_gpu_is_not_waited_for(fusion: type[Fusion], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are chosen on the CPU: what lies elsewhere is neither looked at nor used as a mask."""
    network, batch, looked = model(fusion([8, 8, 8], 8), dropout=0.5), some(), []
    monkeypatch.setattr(Tensor, "is_cuda", True)  # encoders then leave the numbers of a batch alone
    for name in ("item", "tolist", "__bool__"):
        method = getattr(Tensor, name)
        monkeypatch.setattr(Tensor, name, lambda x, method=method, name=name: looked.append(name) or method(x))
    network.represent(batch)
    assert looked == []


def test_texts_are_told_apart_like_tensors() -> None:
    network = MultimodalModel({"text": Length(), "image": ImageEncoder(1, width=4)}, Concat([1, 1]))
    present = torch.tensor([[True, False], [False, True], [True, True]])
    batch = Batch(text=("red", "", "a star"), image=torch.rand(3, 3, 16, 16), present=present)
    assert network(batch)[:, 0].tolist() == [3, 0, 6]


def test_all_modalities_present_is_the_same_as_not_saying_so() -> None:
    network, batch = model().eval(), some()
    assert torch.equal(network(batch), network(batch.replace(present=torch.ones(8, 3, dtype=torch.bool))))


def test_modalities_are_dropped_in_training_alone() -> None:
    network, batch = model(Concat([8, 8, 8]), dropout=0.9), some(64)
    present = []
    network.fusion.register_forward_pre_hook(lambda _, inputs: present.append(inputs[1]))
    network.train()(batch)
    network.eval()(batch)
    assert present[0].any(dim=1).all()
    assert present[0].float().mean() < 0.6
    assert present[1].all()
    network.train()(batch.replace(present=torch.tensor([[True, False, False]] * 64)))
    assert torch.equal(present[2], torch.tensor([[True, False, False]] * 64))


# What it learns


def test_it_learns_what_needs_two_modalities() -> None:
    """Bright or dark, high or low: the class is whether they agree; then the number is their difference."""
    generator = torch.Generator().manual_seed(0)
    bright, high = (torch.randint(2, (128,), generator=generator) for _ in range(2))
    noise = 0.1 * torch.randn(128, 1, 8, 8, generator=generator)
    image = (bright - 0.5)[:, None, None, None] + noise
    audio = torch.full((128, 1, 16, 8), -60.0)
    audio[high == 1, :, 8:], audio[high == 0, :, :8] = -10, -10
    batch = Batch(image=image, audio=audio, label=(bright == high).long())
    parts = {"image": ImageEncoder(8, channels=1, width=4), "audio": AudioEncoder(8, mels=16, width=4)}
    classifier = MultimodalModel(parts, Product([8, 8], 8), nn.Linear(8, 2))
    fit(
        classifier,
        Loader(batch, 32),
        loss=lambda batch: F.cross_entropy(classifier(batch), batch.label),
        steps=60,
        lr=1e-2,
    )
    report = classification_report(predicted=classifier.eval()(batch).argmax(dim=1), label=batch.label)
    assert report.accuracy > 0.95

    difference = (bright - high).float()
    numbers = batch.replace(attributes=(bright - high)[:, None])
    regressor = MultimodalModel(parts, Concat([8, 8]), nn.Linear(16, 1))
    fit(
        regressor,
        Loader(numbers, 32),
        loss=lambda batch: F.mse_loss(regressor(batch), batch.attributes.float()),
        steps=60,
        lr=1e-2,
    )
    error = F.mse_loss(regressor.eval()(batch).squeeze(1), difference)
    assert error < 0.1 * difference.var()


def test_it_reads_pictures_and_sounds_of_digits() -> None:
    batch = Batch(image=torch.rand(40, 1, 32, 32), waveform=torch.rand(40, 8000), label=torch.arange(40) % 10)
    batch = batch.replace(audio=LogMel()(batch.waveform))
    parts = {"image": ImageEncoder(8, channels=1, width=4), "audio": AudioEncoder(8, width=4)}
    network = MultimodalModel(parts, Concat([8, 8]), nn.Linear(16, 10))
    assert network(batch).shape == (40, 10)
    assert MultimodalModel({"image": parts["image"]}, Concat([8]), nn.Linear(8, 10))(batch).shape == (40, 10)


def test_the_shared_vector_can_tell_a_generator_what_to_draw() -> None:
    network, generator = model(Concat([8, 8, 8], 6)), Generator(4, condition_dim=6, size=8, width=4)
    assert generator(torch.randn(8, 4), network.represent(some())).shape == (8, 1, 8, 8)


# What is refused


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"audio": None}, "batch: found no audio; expected it, or a column of False for it in present."),
        ({"tokens": None}, "batch: found no tokens; expected it, or a column of False for it in present."),
        (
            {"present": torch.ones(8, 2, dtype=torch.bool)},
            "present: found (8, 2) torch.bool; expected (8, 3) torch.bool, for image, tokens, audio.",
        ),
        (
            {"present": torch.ones(8, 3, dtype=torch.int64)},
            "present: found (8, 3) torch.int64; expected (8, 3) torch.bool, for image, tokens, audio.",
        ),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(change: dict, said: str) -> None:
    for fusion in (None, CrossAttention([8, 8, 8], 8)):
        with pytest.raises(ValueError, match=r"\.$") as caught:
            model(fusion)(some().replace(**change))
        assert str(caught.value) == said


@pytest.mark.parametrize(
    ("parts", "fusion", "said"),
    [
        (encoders(), Concat([8, 8]), r"^encoders: found 3; expected 2, one for each of the fusion's\.$"),
        (
            encoders(),
            Concat([8, 8, 9]),
            r"^encoders\['audio'\]: found vectors of length 8; expected 9, as the fusion does\.$",
        ),
    ],
)
def test_encoders_that_do_not_fit_are_refused(parts: dict, fusion: Fusion, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MultimodalModel(parts, fusion)


def test_a_dropout_that_is_no_probability_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^p is 1\.5; expected a probability from 0 to 1\.$"):
        model(dropout=1.5).train().represent(some())
