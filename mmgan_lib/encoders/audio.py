"""The log-mel spectrogram of a waveform, and an encoder of it."""

import torch
from torch import Tensor, nn

from mmgan_lib.checks import check_range, check_shape
from mmgan_lib.encoders.base import Encoder

FLOOR = -80.0  # dB


class LogMel(nn.Module):
    r"""The log-mel spectrogram of a waveform: how loud each band of pitches is at each moment, in decibels.

    The power of the short-time Fourier transform, gathered by triangular filters :math:`w_m(f)` that are evenly spaced
    in pitch as the ear hears it, on Slaney's mel scale (Auditory Toolbox, 1998): linear below 1 kHz, logarithmic above.
    The filters have height 1, so that a tone is as loud in a low band as in a high one; a sine of amplitude 1 in the
    middle of a band has about 0 dB, and half the amplitude 6 dB less. Silence is -80 dB.

    .. math:: 10 \log_{10} \max\Bigl(10^{-8}, \sum_f w_m(f) \Bigl|\frac{2\, \mathrm{STFT}(f, t)}{\sum h}\Bigr|^2\Bigr)

    where :math:`h` is the Hann window.

    Args:
        sample_rate: of the waveform, in Hz; nothing in it tells this, so a wrong one makes wrong pitches, unnoticed.
        mels: number of bands, from 0 Hz to half the sample rate.
        window: samples that one spectrum looks at.
        hop: samples from one spectrum to the next.
    """

    def __init__(self, sample_rate: int = 8000, *, mels: int = 40, window: int = 256, hop: int = 128) -> None:
        from transformers.audio_utils import mel_filter_bank

        super().__init__()
        self.sample_rate, self.mels, self.hop = sample_rate, mels, hop
        filters = mel_filter_bank(window // 2 + 1, mels, 0.0, sample_rate / 2, sample_rate, mel_scale="slaney")
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)  # (window / 2 + 1, mels)
        self.register_buffer("window", torch.hann_window(window), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Maps waveforms (B, S) in [-1, 1] to spectrograms (B, 1, mels, 1 + S // hop) in dB, with silence at both ends.

        Raises:
            ValueError: Not waveforms of one channel, or values outside [-1, 1], such as NaN or 16-bit integers.
        """
        check_shape("waveform", waveform, "B", "S")
        check_range("waveform", waveform, 1.0, "floating point in [-1, 1]")
        waveform, size = waveform.to(self.window), len(self.window)
        spectrum = torch.stft(waveform, size, self.hop, window=self.window, pad_mode="constant", return_complex=True)
        power = (2 / self.window.sum() * spectrum.abs()).square()  # (B, frequencies, frames)
        mel = self.filters.T @ power
        return 10 * mel.clamp(min=10 ** (FLOOR / 10)).log10().unsqueeze(1)

    def extra_repr(self) -> str:
        """Returns the settings, as ``print`` shows them."""
        return f"{self.sample_rate}, mels={self.mels}, window={len(self.window)}, hop={self.hop}"


class AudioEncoder(Encoder):
    """A small convolutional network on log-mel spectrograms.

    Three strided convolutions; then all that they found at one moment, in all bands, becomes one state: unlike a
    image's height, pitch is worth keeping. A state stands for 8 frames.

    Args:
        out_dim: length of the vector.
        mels: bands of the spectrogram.
        width: channels of the first feature map; each convolution but the first doubles them.
    """

    def __init__(self, out_dim: int = 128, *, mels: int = 40, width: int = 16) -> None:
        super().__init__()
        self.out_dim, self.mels = out_dim, mels
        layers: list[nn.Module] = [nn.BatchNorm2d(1)]
        for before, after in ((1, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(after), nn.ReLU()]
        self.feature_map = nn.Sequential(*layers)
        self.to_vector = nn.Linear(4 * width * -(-mels // 8), out_dim)

    def sequence(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Maps log-mel spectrograms (B, 1, mels, frames) to states (B, frames / 8, out_dim), rounded up.

        Raises:
            ValueError: Another shape.
        """
        check_shape("audio", audio, "B", 1, self.mels, "frames")
        states = self.to_vector(self.feature_map(audio).flatten(1, 2).mT)
        return states, torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
