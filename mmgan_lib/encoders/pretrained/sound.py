"""A speaker encoder for voices."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan_lib.checks import check_range, check_shape
from mmgan_lib.encoders.pretrained.base import Frozen, packaged_weights

SPEAKER_PACKAGE = "resemblyzer"
SPEAKER_FILE = "resemblyzer/pretrained.pt"
SPEAKER_SHA256 = "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"
RATE, WINDOW, HOP, MELS = 16_000, 400, 160, 40  # samples a second, in 25 ms, in 10 ms; bands
FRAMES = 160  # of the pieces that it was trained on
LOUDNESS = 10 ** (-30 / 20)  # -30 dB: the least root mean square


class SpeakerEncoder(nn.Module):
    """A recurrent network with three layers of LSTM cells (Hochreiter & Schmidhuber, 1997) that reads a spectrogram."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(MELS, 256, num_layers=3, batch_first=True)
        self.linear = nn.Linear(256, 256)


class FrozenSpeakerEncoder(Frozen):
    r"""Voices as unit vectors: the speaker encoder of Wan et al. (Generalized end-to-end loss, 2018).

    It learned to bring together what one speaker says, whatever is said. From the last state :math:`h_T` of its top
    layer it makes

    .. math:: e = \frac{z}{\lVert z \rVert_2}, \qquad z = \max(0, W h_T + b)

    so that the inner product of two vectors is the cosine similarity of their voices. The sequence holds the states
    :math:`h_t`, one each 10 ms; its mask leaves out the silence that is added here.

    It was trained on pieces of 1.6 s: a shorter waveform is made that long by silence after it. So does the package,
    but it also cuts out silence that it finds within, and takes the mean over the pieces of a longer waveform, which is
    read here from beginning to end. Made by :func:`pretrained_speaker_encoder`.
    """

    def __init__(self, network: nn.Module, *, sample_rate: int, **frozen: Any) -> None:
        from transformers.audio_utils import mel_filter_bank

        super().__init__(network, **frozen)
        self.sample_rate = sample_rate
        filters = mel_filter_bank(WINDOW // 2 + 1, MELS, 0.0, RATE / 2, RATE, norm="slaney", mel_scale="slaney")
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)  # (201, MELS)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)

    def preprocess(self, waveform: Tensor) -> Tensor:
        """Maps waveforms (B, S) in [-1, 1] to 16 kHz, (B, S · 16,000 / rate), and turns up those below -30 dB.

        Raises:
            ValueError: Not waveforms of one channel, or values outside [-1, 1], such as NaN or 16-bit integers.
        """
        from scipy.signal import resample_poly

        check_shape("waveform", waveform, "B", "S")
        check_range("waveform", waveform, 1.0, "floating point in [-1, 1]")
        ratio = Fraction(RATE, self.sample_rate)
        resampled = resample_poly(waveform.cpu().float().numpy(), ratio.numerator, ratio.denominator, axis=1)
        waveform = torch.from_numpy(resampled).to(self.window)
        loudness = waveform.square().mean(dim=1, keepdim=True).sqrt()
        return waveform * (LOUDNESS / loudness.clamp(min=1e-8)).clamp(min=1)

    def spectrogram(self, waveform: Tensor) -> Tensor:
        """Maps waveforms (B, S) of 16 kHz to mel spectrograms (B, 1 + S // 160, 40): power, not decibels.

        The bands are as :class:`~mmgan_lib.encoders.LogMel` has them, but their filters have the same area.
        """
        spectrum = torch.stft(waveform, WINDOW, HOP, window=self.window, pad_mode="constant", return_complex=True)
        return (self.filters.T @ spectrum.abs().square()).mT

    def batches(self, waveform: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the states of the top layer (B, T, 256), T at least 160, and their mask."""
        for part in waveform.split(self.batch_size):
            part = self.preprocess(part)
            samples = part.shape[1]
            silence = max(0, FRAMES * HOP - samples)
            frames = max(FRAMES, 1 + samples // HOP)
            states, _ = self.network.lstm(self.spectrogram(F.pad(part, (0, silence)))[:, :frames])
            mask = torch.arange(frames, device=states.device) * HOP < samples
            yield states, mask.expand(len(states), -1)

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Tensor:
        """Returns a unit vector for each of the waveforms (N, S) in [-1, 1], (N, 256)."""
        last = torch.cat([states[:, -1] for states, _ in self.batches(waveform)])
        return F.normalize(self.network.linear(last).relu(), dim=1)

    def extra_repr(self) -> str:
        """Returns the name of the network, its source, and the sample rate of its waveforms."""
        return f"{super().extra_repr()}, sample_rate={self.sample_rate}"


def pretrained_speaker_encoder(*, sample_rate: int = 8000, batch_size: int = 64) -> FrozenSpeakerEncoder:
    """Loads the speaker encoder of Wan et al. (2018), trained on the voices of thousands of people: 256 features.

    The weights are those of the package ``resemblyzer``, of which only this file is read, no code: as installed, else
    downloaded once from the package index. Their sha256 is checked.

    Args:
        sample_rate: of the waveforms that it will be given, in Hz; nothing in a waveform tells it.
        batch_size: waveforms that the network reads at once.

    Raises:
        DataUnavailable: The package is not installed and cannot be downloaded.
        ValueError: These are not the weights of that network.

    >>> pretrained_speaker_encoder()(torch.zeros(2, 8000)).shape
    torch.Size([2, 256])
    """
    weights = packaged_weights(SPEAKER_FILE, package=SPEAKER_PACKAGE, version="0.1.4", sha256=SPEAKER_SHA256)
    with torch.random.fork_rng(devices=[]):  # weights are drawn before they are loaded; nobody should notice
        network = SpeakerEncoder()
    network.load_state_dict({name: weights["model_state"][name] for name in network.state_dict()})
    return FrozenSpeakerEncoder(
        network,
        sample_rate=sample_rate,
        out_dim=256,
        name="GE2E speaker encoder",
        source=f"the package {SPEAKER_PACKAGE}",
        batch_size=batch_size,
    )
