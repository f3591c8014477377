"""The synthetic speech that ships with the library."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmgan_lib.datasets import synthetic
from mmgan_lib.datasets.digit_sources import Recordings
from mmgan_lib.datasets.synthetic import synthetic_speech
from mmgan_lib.encoders import LogMel


@pytest.fixture(scope="module")
def train() -> Recordings:
    return synthetic_speech(train=True)


@pytest.fixture(scope="module")
def test() -> Recordings:
    return synthetic_speech(train=False)


@pytest.fixture(params=["train", "test"])
def split(request: pytest.FixtureRequest) -> Recordings:
    return request.getfixturevalue(request.param)


def features(speech: Recordings) -> Tensor:
    """The spectrogram, coarsely: (R, 320)."""
    return F.avg_pool2d(LogMel()(speech.waveforms / 2**15), (2, 4)).flatten(1) / 80


def length(waveform: Tensor) -> int:
    """Samples up to the last that is not silent."""
    return int(waveform.nonzero()[-1]) + 1


@pytest.mark.parametrize(("split", "takes"), [("train", 35), ("test", 5)], indirect=["split"])
def test_every_voice_says_every_digit_as_often(split: Recordings, takes: int) -> None:
    assert split.waveforms.shape == (len(split.digits), 8000)
    assert split.waveforms.dtype == torch.int16
    assert split.digits.dtype == torch.int64
    said = list(zip(split.speakers, split.digits.tolist(), strict=True))
    assert len(set(split.speakers)) == 8
    assert {said.count((voice, digit)) for voice in set(split.speakers) for digit in range(10)} == {takes}


def test_no_two_takes_are_the_same(train: Recordings, test: Recordings) -> None:
    waveforms = torch.cat([train.waveforms, test.waveforms])
    assert len({waveform.numpy().tobytes() for waveform in waveforms}) == len(waveforms) == 3200


def test_every_reading_gives_the_same(test: Recordings) -> None:
    again = synthetic_speech(train=False)
    assert torch.equal(again.waveforms, test.waveforms)
    assert torch.equal(again.digits, test.digits)
    assert again.speakers == test.speakers


def test_no_take_is_cut_off_clipped_or_inaudible(split: Recordings) -> None:
    peaks = split.waveforms.int().abs().amax(1)
    assert peaks.max() < 2**15 - 1
    assert peaks.min() > 0.03 * 2**15
    lengths = [length(waveform) for waveform in split.waveforms]
    assert max(lengths) <= 0.95 * 8000
    assert min(lengths) >= 0.1 * 8000


def test_a_word_has_faded_where_its_take_ends(split: Recordings) -> None:
    left = []
    for waveform in split.waveforms.double():
        end = length(waveform)
        loudest = waveform[:end].unfold(0, 160, 40).square().mean(1).max()
        left.append(waveform[end - 40 : end].square().mean() / loudest)
    assert torch.stack(left).quantile(0.99) < 0.05
    assert max(left) < 0.25  # the noise of a soft take


def test_takes_of_a_voice_differ_in_length_and_loudness(train: Recordings) -> None:
    voices = np.array(train.speakers)
    for voice in set(train.speakers):
        sevens = train.waveforms[torch.from_numpy(voices == voice) & (train.digits == 7)]
        lengths = torch.tensor([length(waveform) for waveform in sevens]).double()
        decibels = 20 * sevens.double().square().mean(1).sqrt().log10()
        assert lengths.std() > 0.05 * lengths.mean()
        assert decibels.std() > 1


def test_a_linear_classifier_learns_to_hear_the_digit(train: Recordings, test: Recordings) -> None:
    from sklearn.linear_model import RidgeClassifier

    model = RidgeClassifier(alpha=10.0).fit(features(train).numpy(), train.digits.numpy())
    assert model.score(features(test).numpy(), test.digits.numpy()) > 0.8


def test_voices_are_no_copies_of_each_other(train: Recordings, test: Recordings) -> None:
    from sklearn.linear_model import RidgeClassifier

    speaker = RidgeClassifier(alpha=10.0).fit(features(train).numpy(), train.speakers)
    assert speaker.score(features(test).numpy(), test.speakers) > 0.6  # by chance 1 in 8


def test_the_index_says_how_the_sounds_were_made() -> None:
    index = json.loads(synthetic.VOICES.with_suffix(".json").read_bytes())
    assert index["command"] == "python -m tools.voices"
    assert index["made with"].startswith("espeak-ng 1.")
    ends = [start + size for *_, start, size in index["takes"]]
    assert [start for *_, start, _ in index["takes"]] == [0, *ends[:-1]]  # one after another, none shared


def test_the_sounds_are_small() -> None:
    assert synthetic.VOICES.stat().st_size <= 6e6


def test_a_damaged_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = bytearray(synthetic.VOICES.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "voices.json").write_bytes(synthetic.VOICES.with_suffix(".json").read_bytes())
    monkeypatch.setattr(synthetic, "VOICES", tmp_path / "voices.flac")
    synthetic.VOICES.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"voices\.flac is damaged: found .* sha256 \w{64}, expected \w{64}\.$"):
        synthetic_speech(train=True)
