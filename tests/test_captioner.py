"""The captioner: its loss by hand, what it can learn, and when it stops."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from mmgan_lib.encoders import ImageEncoder, Vocabulary
from mmgan_lib.models import Captioner

CAPTIONS = [
    f"a {colour} {shape}{place}."
    for colour, shape, place in product(
        ("red", "green", "blue", "dark-grey"),
        ("disc", "star", "ring", "square"),
        ("", " in the upper left corner"),
    )
]
WORDS = Vocabulary.of(CAPTIONS)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def captioner() -> Captioner:
    return Captioner(ImageEncoder(16, width=8), WORDS, width=32)


def pictures(n: int) -> Tensor:
    return torch.rand(n, 3, 16, 16) * 2 - 1


def test_it_learns_the_captions_of_32_pictures() -> None:
    model, image = captioner(), pictures(32)
    tokens, mask = WORDS.encode(CAPTIONS)
    assert len(set(CAPTIONS)) == 32
    assert model.generate(image) != CAPTIONS
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(image, tokens, mask).backward()
        optimizer.step()
    assert model.generate(image) == CAPTIONS
    turned = torch.randperm(32)
    assert model.generate(image[turned]) == [CAPTIONS[i] for i in turned]
    assert model.generate(image[5:6]) == [CAPTIONS[5]]


def test_the_loss_is_the_mean_surprise_of_each_true_word() -> None:
    model, image = captioner().eval(), pictures(3)
    tokens, mask = WORDS.encode(["a red disc.", "a blue star in the upper left corner.", ""])
    surprises = []
    for b in range(3):
        caption = tokens[b, mask[b]].tolist()
        for t in range(1, len(caption)):  # given the picture and the true words before, and nothing else
            logits = model(image[b : b + 1], torch.tensor([caption[:t]]))[0, -1].double()
            surprises.append(-(logits.softmax(dim=0)[caption[t]]).log().item())
    assert len(surprises) == 5 + 10 + 1
    assert model.loss(image, tokens, mask).item() == pytest.approx(sum(surprises) / len(surprises), rel=1e-5)


def test_padding_counts_for_nothing() -> None:
    model, image = captioner().eval(), pictures(2)
    tokens, mask = WORDS.encode(["a red disc.", "a blue star."])
    padded, wider = torch.nn.functional.pad(tokens, (0, 4), value=5), torch.nn.functional.pad(mask, (0, 4))
    torch.testing.assert_close(model.loss(image, padded, wider), model.loss(image, tokens, mask))


def test_a_guess_costs_the_logarithm_of_the_number_of_words() -> None:
    model = captioner()
    torch.nn.init.zeros_(model.to_word.weight), torch.nn.init.zeros_(model.to_word.bias)
    loss = model.loss(pictures(4), *WORDS.encode(CAPTIONS[:4]))
    assert loss.item() == pytest.approx(math.log(len(WORDS)))


def test_every_weight_learns() -> None:
    model = captioner()
    model.loss(pictures(4), *WORDS.encode(CAPTIONS[-4:])).backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def always_say(model: Captioner, *order: str) -> None:
    """Whatever the picture: the first of these words that may be said."""
    torch.nn.init.zeros_(model.to_word.weight), torch.nn.init.zeros_(model.to_word.bias)
    with torch.no_grad():
        for rank, word in enumerate(order):
            model.to_word.bias[model.vocabulary.words.index(word)] = 10 - rank


def test_a_caption_ends_at_eos_or_at_its_longest() -> None:
    model = captioner()
    always_say(model, "<eos>")
    assert model.generate(pictures(2)) == ["", ""]
    always_say(model, "red")
    assert model.generate(pictures(2), max_words=3) == ["red red red"] * 2


def test_a_caption_never_holds_padding_unknown_or_begin() -> None:
    model = captioner()
    always_say(model, "<pad>", "<unk>", "<bos>", "star")
    assert model.generate(pictures(1), max_words=2) == ["star star"]


def test_a_word_depends_on_those_before_it_alone() -> None:
    model, image = captioner().eval(), pictures(2)
    tokens, _ = WORDS.encode(CAPTIONS[:2])
    changed = tokens.clone()
    changed[:, 3] = 9
    moved = (model(image, changed) - model(image, tokens)).abs().amax(dim=(0, 2)) > 1e-6
    assert moved.tolist() == [False] * 3 + [True] * (tokens.shape[1] - 3)


def test_what_is_masked_in_the_picture_is_not_seen() -> None:
    model, image = captioner().eval(), pictures(2)
    tokens, _ = WORDS.encode(CAPTIONS[:2])
    cells, mask = model._look(image)
    mask[:, 1:] = False
    hidden = cells.clone()
    hidden[:, 1:] = 99
    torch.testing.assert_close(model._read_on(tokens, cells, mask)[0], model._read_on(tokens, hidden, mask)[0])
    assert not torch.allclose(model._read_on(tokens, cells, mask)[0], model(image, tokens))


def test_generating_leaves_no_trace() -> None:
    model = captioner()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.generate(pictures(2))
    assert model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_what_does_not_fit_is_refused() -> None:
    model = captioner()
    tokens, mask = WORDS.encode(["a red disc."])
    with pytest.raises(ValueError, match=r"^token_mask: found shape \(1, 6\); expected \(1, 7\)\.$"):
        model.loss(pictures(1), torch.nn.functional.pad(tokens, (0, 1)), mask)
    with pytest.raises(ValueError, match=r"^tokens: found numbers from 2 to 999; expected 0 to"):
        model.loss(pictures(1), tokens.masked_fill(tokens == 4, 999), mask)
    with pytest.raises(ValueError, match=r"^image: found shape \(1, 1, 16, 16\); expected \(B, 3, H, W\)\.$"):
        model.loss(pictures(1)[:, :1], tokens, mask)
    for few, n in ((tokens, 2), (tokens[:, :1], 1)):
        with pytest.raises(ValueError, match=rf"^tokens: found shape \(1, .\); expected \({n}, T\), a caption"):
            model.loss(pictures(n), few, torch.ones_like(few).bool())
