"""Encoders: one convention for all, oracles for what is computed, invariances, and clear refusals."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from mmgan_lib import checkpoint
from mmgan_lib.encoders import (
    AudioEncoder,
    Encoder,
    ImageEncoder,
    LogMel,
    TextEncoder,
    Vocabulary,
    cached_features,
    evaluating,
    masked_mean,
)

TEXTS = ["a small red circle", "blue square", "", "the large green star at the top left of the picture"]
WORDS = Vocabulary.of(TEXTS)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def pictures(n: int = 4, channels: int = 3, size: int = 32) -> Tensor:
    return torch.rand(n, channels, size, size) * 2 - 1


def tone(hertz: float, samples: int = 4000, amplitude: float = 1.0) -> Tensor:
    return amplitude * torch.sin(2 * torch.pi * hertz * torch.arange(samples) / 8000)[None]


# All encoders

EVERY = {
    "image": (lambda: ImageEncoder(6, width=4), lambda: (pictures(),), 16),
    "audio": (lambda: AudioEncoder(6, width=4), lambda: (torch.randn(4, 1, 40, 33),), 5),
    "text": (lambda: TextEncoder(WORDS, 6, width=8), lambda: WORDS.encode(TEXTS), 13),
}
every_encoder = pytest.mark.parametrize(("make", "inputs", "length"), EVERY.values(), ids=EVERY)


@every_encoder
def test_a_vector_is_the_mean_of_the_sequence(make, inputs, length: int) -> None:
    encoder, x = make().eval(), inputs()
    states, mask = encoder.sequence(*x)
    assert (states.shape, mask.shape, mask.dtype) == ((4, length, 6), (4, length), torch.bool)
    means = [row[present].mean(dim=0) for row, present in zip(states, mask, strict=True)]
    torch.testing.assert_close(encoder(*x), torch.stack(means))
    assert encoder.out_dim == 6


@every_encoder
def test_a_sample_does_not_depend_on_its_batch(make, inputs, length: int) -> None:
    encoder, x = make().eval(), inputs()
    alone = torch.cat([encoder(*(part[i : i + 1] for part in x)) for i in range(4)])
    torch.testing.assert_close(encoder(*x), alone, atol=1e-6, rtol=1e-5)
    assert (alone[0] - alone[1]).abs().max() > 1e-3


@every_encoder
def test_every_weight_learns(make, inputs, length: int) -> None:
    encoder = make()
    vectors = encoder(*inputs())
    (vectors * torch.randn_like(vectors)).sum().backward()
    assert [name for name, weight in encoder.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@every_encoder
def test_an_encoder_survives_saving(make, inputs, length: int, tmp_path: Path) -> None:
    first, second, x = make(), make(), inputs()
    first(*x)  # moves the running averages of batch normalisation
    checkpoint.load(checkpoint.save(tmp_path, step=1, models={"encoder": first}), {"encoder": second})
    assert torch.equal(first.eval()(*x), second.eval()(*x))


def test_masked_mean_never_looks_at_what_is_masked() -> None:
    states = torch.randn(2, 3, 5)
    mask = torch.tensor([[True, False, True], [False, False, False]])
    states[0, 1], states[1] = torch.nan, torch.inf
    states.requires_grad_()
    mean = masked_mean(states, mask)
    torch.testing.assert_close(mean, torch.stack([(states[0, 0] + states[0, 2]) / 2, torch.zeros(5)]))
    mean.sum().backward()
    torch.testing.assert_close(states.grad, (mask / 2.0)[..., None].expand(2, 3, 5))


def test_evaluating_restores_the_mode_of_every_part() -> None:
    network = nn.Sequential(nn.Dropout(), nn.Dropout().eval())

    def fail() -> None:
        with evaluating(network):
            assert [part.training for part in network.modules()] == [False] * 3
            assert not torch.is_grad_enabled()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [part.training for part in network.modules()] == [True, True, False]
    assert torch.is_grad_enabled()


def test_importing_the_encoders_is_light() -> None:
    heavy = {"transformers", "tokenizers", "torchvision", "pooch", "sklearn"}
    code = f"import sys, mmgan_lib.encoders, mmgan_lib.models; print(*(sys.modules.keys() & {heavy}), end='')"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("", "")


# Pictures


@pytest.mark.parametrize(("size", "cells"), [(32, 16), (64, 64), (8, 1), (20, 9)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_of_any_size_is_a_grid_of_cells(size: int, cells: int, channels: int) -> None:
    encoder = ImageEncoder(7, channels=channels, width=4)
    assert encoder.sequence(pictures(2, channels, size))[0].shape == (2, cells, 7)


def test_the_image_encoder_is_made_of_residual_blocks() -> None:
    encoder = ImageEncoder()
    assert sum(isinstance(part, BasicBlock) for part in encoder.modules()) == 3
    assert sum(weight.nbytes for weight in encoder.state_dict().values()) < 1.5e6


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (3, 32, 32), (0, 3, 32, 32), (2, 3, 0, 32)])
def test_pictures_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    found = ", ".join(map(str, shape))
    with pytest.raises(ValueError, match=rf"^image: found shape \({found}\); expected \(B, 3, H, W\)\.$"):
        ImageEncoder(width=4)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ((pictures() + 1) * 127.5, r"float32 from 0\.\d+ to 25\d\.?\d*"),
        (torch.tensor([0, 255], dtype=torch.uint8).repeat(1, 3, 4, 2), "uint8 from 0 to 255"),
        (torch.full((1, 3, 8, 8), torch.nan), "float32 from nan to nan"),
    ],
    ids=["0 to 255", "uint8", "nan"],
)
def test_pictures_that_nobody_scaled_are_refused(image: Tensor, found: str) -> None:
    with pytest.raises(ValueError, match=rf"^image: found {found}; expected floating point in \[-1, 1\]\.$"):
        ImageEncoder(width=4)(image)


# Sounds


def slaney_mel(hertz: np.ndarray) -> np.ndarray:
    return np.where(hertz < 1000, 3 * hertz / 200, 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4))


def slaney_hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, 200 * mel / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def log_mel_by_hand(waveform: np.ndarray, rate: int, mels: int, size: int, hop: int) -> np.ndarray:
    edges = slaney_hertz(np.linspace(0, slaney_mel(np.array(rate / 2)), mels + 2))
    bins = np.arange(size // 2 + 1) * rate / size
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    padded = np.pad(waveform.astype(np.float64), size // 2)
    result = np.empty((mels, 1 + len(waveform) // hop))
    for frame in range(result.shape[1]):
        spectrum = np.fft.rfft(hann * padded[frame * hop : frame * hop + size]) * 2 / hann.sum()
        for m, (low, centre, high) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
            triangle = np.clip(np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)), 0, None)
            result[m, frame] = 10 * np.log10(max(1e-8, (triangle * np.abs(spectrum) ** 2).sum()))
    return result


@pytest.mark.parametrize(
    ("rate", "mels", "size", "hop", "samples"), [(8000, 40, 256, 128, 1000), (16000, 64, 1024, 160, 3001)]
)
def test_log_mel_equals_its_definition(rate: int, mels: int, size: int, hop: int, samples: int) -> None:
    waveform = (0.2 * torch.randn(2, samples)).clamp(-1, 1)
    waveform[1, samples // 2 :] = 0
    found = LogMel(rate, mels=mels, window=size, hop=hop)(waveform)
    assert found.shape == (2, 1, mels, 1 + samples // hop)
    expected = [log_mel_by_hand(row.numpy(), rate, mels, size, hop) for row in waveform]
    torch.testing.assert_close(found[:, 0].double(), torch.from_numpy(np.stack(expected)), atol=2e-3, rtol=0)


def test_every_band_hears_something() -> None:
    assert (LogMel().filters.sum(dim=0) > 0.5).all()


@pytest.mark.parametrize("band", [3, 10, 20, 30, 38])
def test_a_tone_is_loudest_in_its_band(band: int) -> None:
    centres = slaney_hertz(np.linspace(0, slaney_mel(np.array(4000.0)), 42))[1:-1]
    spectrum = LogMel()(tone(centres[band]))[0, 0, :, 2:-2]
    assert (spectrum.argmax(dim=0) == band).all()
    assert spectrum[band].min() > -3
    assert spectrum[band].max() < 3
    far = torch.arange(40).sub(band).abs() > 4
    assert spectrum[far].max() < spectrum[band].min() - 25


def test_decibels() -> None:
    loud, quiet = LogMel()(tone(1000)), LogMel()(tone(1000, amplitude=0.5))
    heard = quiet > -70
    assert heard.sum() > 100
    torch.testing.assert_close((loud - quiet)[heard], torch.full_like(loud[heard], 20 * np.log10(2)), atol=1e-3, rtol=0)


def test_silence_is_finite() -> None:
    assert torch.equal(LogMel()(torch.zeros(1, 4000)), torch.full((1, 1, 40, 32), -80.0))


def test_a_later_sound_is_a_shifted_spectrogram() -> None:
    waveform = torch.zeros(2, 2048)
    click = 0.5 * torch.randn(300).clamp(-2, 2)
    waveform[0, 400:700], waveform[1, 400 + 3 * 128 : 700 + 3 * 128] = click, click
    early, late = LogMel()(waveform)[:, 0]
    torch.testing.assert_close(late[:, 3:], early[:, :-3])


@pytest.mark.parametrize("samples", [1, 100, 127, 128, 4000])
def test_waves_of_any_length(samples: int) -> None:
    audio = LogMel()(torch.rand(2, samples))
    assert audio.shape == (2, 1, 40, 1 + samples // 128)
    states, mask = AudioEncoder(5, width=2).eval().sequence(audio)
    assert states.shape == (2, -(-audio.shape[-1] // 8), 5)
    assert mask.all()


@pytest.mark.parametrize(
    ("waveform", "found"),
    [
        (torch.zeros(4000), r"shape \(4000,\); expected \(B, S\)"),
        (torch.zeros(1, 2, 4000), r"shape \(1, 2, 4000\); expected \(B, S\)"),
        (torch.zeros(1, 0), r"shape \(1, 0\); expected \(B, S\)"),
        (torch.tensor([[0.0, torch.nan]]), r"float32 from nan to nan; expected floating point in \[-1, 1\]"),
        (torch.tensor([[-32768.0, 9]]), r"float32 from -3.277e\+04 to 9; expected floating point in \[-1, 1\]"),
        (torch.tensor([[0, 1]], dtype=torch.int16), r"int16 from 0 to 1; expected floating point in \[-1, 1\]"),
    ],
    ids=["one axis", "stereo", "empty", "nan", "16 bit", "integers"],
)
def test_waves_that_cannot_be_are_refused(waveform: Tensor, found: str) -> None:
    with pytest.raises(ValueError, match=rf"^waveform: found {found}\.$"):
        LogMel()(waveform)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_waves_of_another_precision_are_heard_alike(dtype: torch.dtype) -> None:
    waveform = tone(500).to(dtype)
    assert torch.equal(LogMel()(waveform), LogMel()(waveform.float()))


def test_spectrograms_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^audio: found shape \(2, 1, 64, 9\); expected \(B, 1, 40, frames\)\.$"):
        AudioEncoder(width=2)(torch.zeros(2, 1, 64, 9))


def test_when_is_kept_in_the_sequence_and_pitch_in_the_vector() -> None:
    encoder = AudioEncoder(8, width=4).eval()
    low, high = LogMel()(tone(500)), LogMel()(tone(2000))
    assert (encoder(low) - encoder(high)).abs().max() > 1e-3
    silence = torch.full((1, 1, 40, 64), -80.0)
    for frame, state in ((24, 3), (48, 6)):
        sound = silence.clone()
        sound[..., frame - 2 : frame + 3] = 0
        changed = (encoder.sequence(sound)[0] - encoder.sequence(silence)[0]).abs().sum(dim=2)
        assert changed.argmax() == state


# Texts


def test_padding_changes_nothing() -> None:
    encoder = TextEncoder(WORDS, 6, width=8)
    tokens, mask = encoder.encode_text(TEXTS[:2])
    longer, wider = F.pad(tokens, (0, 5)), F.pad(mask, (0, 5))
    garbage = longer.masked_fill(~wider, 7)
    assert torch.equal(encoder(longer, wider), encoder(tokens, mask))
    assert torch.equal(encoder(garbage, wider), encoder(tokens, mask))


def test_texts_come_back() -> None:
    tokens, mask = WORDS.encode(TEXTS)
    assert (tokens.dtype, mask.dtype) == (torch.int64, torch.bool)
    assert mask.sum(dim=1).tolist() == [len(text.split()) + 2 for text in TEXTS]
    assert torch.equal(mask, tokens != 0)
    assert WORDS.decode(tokens) == TEXTS


def test_nothing_is_cut_off() -> None:
    text = " ".join(["red circle"] * 700)
    assert WORDS.decode(WORDS.encode([text])[0]) == [text]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("A RED   circle\n", "a red circle"),
        ("red, blue.", "red<unk> blue<unk>"),
        ("<pad> <eos> red", "<unk> <unk> <unk> <unk> <unk> <unk> red"),
        ("crimson circle", "<unk> circle"),
    ],
)
def test_what_is_read(text: str, read: str) -> None:
    assert WORDS.decode(WORDS.encode([text])[0]) == [read.replace("<unk>", " <unk>").strip().replace("  ", " ")]


def test_punctuation_stands_where_it_belongs() -> None:
    text = "it's a medium-sized, dark-red circle; a star - and a square!"
    vocabulary = Vocabulary.of([text])
    assert {"it's", "medium-sized", ",", "-"} < set(vocabulary.words)
    assert vocabulary.decode(vocabulary.encode([text])[0]) == [text]


def test_accents_are_the_same_however_they_are_written() -> None:
    tokens, _ = Vocabulary(["café"]).encode(["caf\u00e9", "CAFE\u0301"])
    assert tokens.tolist() == [[2, 4, 3]] * 2


def test_a_vocabulary_holds_the_most_frequent_words() -> None:
    texts = ["d c b a", "d c b", "d c e"]
    assert Vocabulary.of(texts).words[4:] == ("c", "d", "b", "a", "e")
    assert Vocabulary.of(reversed(texts), size=3).words[4:] == ("c", "d", "b")


@pytest.mark.parametrize("space", [" ", "\t", "\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x1f", "\x85", "\u2028"])
def test_words_end_at_whatever_python_takes_for_a_space(space: str) -> None:
    vocabulary = Vocabulary.of([f"red{space}circle", f"{space}red"])
    assert vocabulary.words[4:] == ("red", "circle")
    assert vocabulary.decode(vocabulary.encode([f"red{space}circle"])[0]) == ["red circle"]


@pytest.mark.parametrize("texts", [[], "red", ["red", 5], ["a \udc08"]])
def test_words_are_not_collected_from_what_is_no_text(texts: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^texts"):
        Vocabulary.of(texts)


def test_the_words_are_saved_with_the_weights(tmp_path: Path) -> None:
    first, second = (TextEncoder(Vocabulary(words), 6, width=8) for words in (["red", "blue"], ["blue", "red"]))
    tokens, _ = second.encode_text(["red blue"])
    assert tokens.tolist() == [[2, 5, 4, 3]]
    path = checkpoint.save(tmp_path, step=1, models={"text": first})
    checkpoint.load(path, {"text": second})
    assert second.vocabulary.words == first.vocabulary.words
    assert second.encode_text(["red blue"])[0].tolist() == [[2, 4, 5, 3]]
    other = TextEncoder(Vocabulary(["green", "blue"]), 6, width=8)
    with pytest.raises(checkpoint.CheckpointError, match="spelling"):
        checkpoint.load(path, {"text": other})


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], "0 words, 0 of them different"),
        (["red", "red"], "2 words, 1 of them different"),
        (["red", "dark blue"], "the word 'dark blue'"),
        (["red", ""], "the word ''"),
        (["Red"], "the word 'Red'"),
        (["<eos>"], "the word '<eos>'"),
    ],
)
def test_words_that_cannot_be_are_refused(words: list[str], found: str) -> None:
    with pytest.raises(ValueError, match=rf"^words: found {found}; expected different lower-case words"):
        Vocabulary(words)


BAD_TEXTS = [
    ([], r"texts: found \[\]; expected a list of at least one string"),
    ("red", "texts: found 'red'; expected a list of at least one string"),
    (["red", "a \ud83d"], r"texts\[1\]: found '\\ud83d', half a surrogate pair; expected whole characters"),
    (["red", None], r"texts\[1\]: found None; expected a string"),
    (["red", b"blue"], r"texts\[1\]: found b'blue'; expected a string"),
]


@pytest.mark.parametrize(("texts", "message"), BAD_TEXTS)
def test_what_is_no_text_is_refused(texts, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{message}\.$"):
        WORDS.encode(texts)


@pytest.mark.parametrize(
    ("tokens", "mask", "message"),
    [
        (torch.ones(2, 3), torch.ones(2, 3).bool(), r"tokens and token_mask: found \(2, 3\) torch.float32"),
        (torch.ones(2, 3).long(), torch.ones(2, 3), r"tokens and token_mask: found .* and \(2, 3\) torch.float32"),
        (torch.ones(3).long(), torch.ones(3).bool(), r"tokens and token_mask: found \(3,\)"),
        (torch.ones(2, 3).long(), torch.ones(2, 4).bool(), r"token_mask: found shape \(2, 4\); expected \(2, 3\)"),
        (torch.full((1, 2), 99), torch.ones(1, 2).bool(), "tokens: found numbers from 99 to 99; expected 0 to 1"),
        (torch.full((1, 2), -1), torch.ones(1, 2).bool(), "tokens: found numbers from -1 to -1; expected 0 to 1"),
    ],
)
def test_tokens_that_cannot_be_are_refused(tokens: Tensor, mask: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        TextEncoder(WORDS, 6, width=8)(tokens, mask)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The types of the tensors whose numbers are looked at, while each tensor says that it is on a GPU."""
    looks, aminmax = [], Tensor.aminmax
    monkeypatch.setattr(Tensor, "is_cuda", True)
    monkeypatch.setattr(Tensor, "aminmax", lambda x: looks.append(str(x.dtype)) or aminmax(x))
    return looks


def test_in_training_on_a_gpu_numbers_are_not_looked_at(looks: list[str]) -> None:
    see, read = ImageEncoder(6, width=4), TextEncoder(WORDS, 6, width=8)
    tokens, mask = WORDS.encode(TEXTS[:2])
    see(pictures()), read(tokens, mask)
    assert looks == []
    with pytest.raises(ValueError, match="image: found uint8"):
        see(pictures().byte())
    with pytest.raises(ValueError, match="tokens and token_mask: found"):
        read(tokens.int(), mask)
    looks.clear()
    see.eval()(pictures()), read.eval()(tokens, mask)
    assert looks == ["torch.float32", "torch.int64"]


# The cache of features


class Counting(nn.Linear):
    """Doubles as picture and text encoder; counts what it is asked to encode."""

    seen = 0

    def forward(self, inputs: Tensor | list[str]) -> Tensor:
        self.seen += len(inputs)
        assert not self.training
        assert not torch.is_grad_enabled()
        x = inputs if isinstance(inputs, Tensor) else torch.tensor([[float(len(text))] * 3 for text in inputs])
        return super().forward(x)


@pytest.mark.parametrize("inputs", [torch.arange(30.0).reshape(10, 3), tuple("abcdefghij")], ids=["tensor", "texts"])
def test_features_are_computed_once(tmp_path: Path, inputs) -> None:
    encoder = Counting(3, 2)
    first = cached_features(encoder, inputs, folder=tmp_path / "made", batch_size=4)
    second = cached_features(encoder, inputs, folder=tmp_path / "made", batch_size=3)
    assert encoder.seen == 10
    assert encoder.training
    assert torch.equal(first, second)
    with evaluating(encoder):
        torch.testing.assert_close(first, encoder(inputs))
    assert [file.suffix for file in (tmp_path / "made").iterdir()] == [".safetensors"]


def test_what_changes_the_features_changes_the_file(tmp_path: Path) -> None:
    encoder, x = Counting(3, 2), torch.arange(6.0).reshape(2, 3)
    first = cached_features(encoder, x, folder=tmp_path)
    changed = x.clone()
    changed[1, 2] += 1e-3
    for inputs in (changed, x.flip(0), x[:1], ["a", "b"], ["ab", ""]):
        cached_features(encoder, inputs, folder=tmp_path)
    with torch.no_grad():
        encoder.bias += 1
    torch.testing.assert_close(cached_features(encoder, x, folder=tmp_path), first + 1)
    assert len(list(tmp_path.iterdir())) == 7
    settings = [nn.Sequential(LogMel(mels=mels), nn.Flatten()) for mels in (20, 30)]  # nothing in their state_dict
    widths = [cached_features(module, torch.zeros(1, 200), folder=tmp_path).shape[1] for module in settings]
    assert widths == [40, 60]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign"])
def test_a_damaged_file_is_told_of_and_made_again(tmp_path: Path, damage: str) -> None:
    encoder, x = Counting(3, 2), torch.arange(6.0).reshape(2, 3)
    expected = cached_features(encoder, x, folder=tmp_path)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    flipped = content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]
    damaged = {"truncated": content[:-5], "flipped": flipped, "empty": b"", "foreign": b"<html>not here</html>"}
    file.write_bytes(damaged[damage])
    with pytest.warns(UserWarning, match=r"\.safetensors is damaged .* computed anew"):
        assert torch.equal(cached_features(encoder, x, folder=tmp_path), expected)
    assert file.read_bytes() == content


def test_a_folder_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    cached_features(Counting(3, 2), torch.zeros(2, 3), folder="~/made")
    assert len(list((tmp_path / "made").iterdir())) == 1


def test_nothing_to_encode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^inputs: found none; expected at least one\.$"):
        cached_features(Counting(3, 2), torch.zeros(0, 3), folder=tmp_path)


def test_an_encoder_needs_a_sequence() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Encoder()
