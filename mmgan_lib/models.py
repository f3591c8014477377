"""Models of encoders, a fusion and a head, and a captioner."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan_lib.checks import check_tokens
from mmgan_lib.datasets import Batch
from mmgan_lib.encoders import Encoder, Vocabulary, evaluating
from mmgan_lib.encoders.text import BOS, EOS, PAD, UNK
from mmgan_lib.fusion import Fusion, modality_dropout

IGNORED = -100  # the target that cross_entropy leaves out


class MultimodalModel(nn.Module):
    r"""Encoders of a batch's modalities, a fusion and a head, whose answer is logits of classes or numbers.

    .. math:: y = \operatorname{head}(\operatorname{fusion}(\operatorname{encoder}_1(x_1), \dots,
        \operatorname{encoder}_M(x_M)))

    What a sample lacks is told by ``batch.present``, whose columns are in the order of the encoders. An encoder is only
    given the samples that have its modality, so that what stands in the place of the others cannot matter, not even to
    batch normalisation; a field that no sample has can be left out.

    Args:
        encoders: field of :class:`Batch` → encoder, of any name. A field's mask, if the batch has one, is given along:
            ``tokens`` come with ``token_mask``, ``waveform`` with ``waveform_mask``. An encoder gives a vector
            (B, D_m), and for a fusion of sequences has a method ``sequence``.
        fusion: brings the vectors together, in the order of ``encoders``.
        head: maps the shared vector (B, fusion.out_dim) to the answer; None if that is the answer, as after
            :class:`~mmgan_lib.fusion.LateAverage`.
        dropout: probability with which a modality is dropped in training, by :func:`modality_dropout`.

    Raises:
        ValueError: encoders that do not fit the fusion.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        fusion: Fusion,
        head: nn.Module | None = None,
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check_encoders(encoders, fusion)
        self.encoders, self.fusion = nn.ModuleDict(encoders), fusion
        self.head = nn.Identity() if head is None else head
        self.dropout = dropout

    def forward(self, batch: Batch) -> Tensor:
        """Returns the answer for each sample, (B, K)."""
        return self.head(self.represent(batch))

    def represent(self, batch: Batch) -> Tensor:
        """Returns the shared vector of each sample, (B, fusion.out_dim): what a generator can take as its condition.

        Raises:
            ValueError: the batch lacks a field, or its ``present`` has another type or number of modalities.
        """
        present, drops = self.present(batch), self.training and self.dropout
        if drops:
            present = modality_dropout(present, self.dropout)
        complete = batch.present is None and not drops
        rows = [None] * len(self.encoders) if complete else [column.nonzero()[:, 0] for column in present.T]
        inputs = [self._encode(m, name, batch, rows[m]) for m, name in enumerate(self.encoders)]
        if self.fusion.takes_sequences:
            states, masks = zip(*inputs, strict=True)
            return self.fusion(states, masks)
        return self.fusion(inputs, present.to(inputs[0].device, non_blocking=True))

    def present(self, batch: Batch) -> Tensor:
        """Returns the mask of each sample's modalities, (B, M) bool on the CPU, where it is read without a wait."""
        shape = (len(batch), len(self.encoders))
        if batch.present is None:
            return torch.ones(shape, dtype=torch.bool)
        if batch.present.shape != shape or batch.present.dtype != torch.bool:
            found, names = f"{tuple(batch.present.shape)} {batch.present.dtype}", ", ".join(self.encoders)
            raise ValueError(f"present: found {found}; expected {shape} torch.bool, for {names}.")
        return batch.present.cpu()

    def _encode(self, m: int, name: str, batch: Batch, rows: Tensor | None) -> Tensor | tuple[Tensor, Tensor]:
        """Returns each sample's vector, or its states and their mask; zeros for samples outside ``rows`` (b,) int64."""
        encoder, sequence = self.encoders[name], self.fusion.takes_sequences
        if rows is not None and len(rows) == 0:
            nothing = next(self.parameters()).new_zeros(len(batch), self.fusion.dims[m])
            return (nothing[:, None], torch.zeros_like(nothing[:, :1], dtype=torch.bool)) if sequence else nothing
        whole = rows is None or len(rows) == len(batch)
        inputs = [x if whole else _chosen(x, rows) for x in _inputs(name, batch)]
        found = encoder.sequence(*inputs) if sequence else (encoder(*inputs),)
        found = found if whole else _spread(found, rows, len(batch))
        return found if sequence else found[0]


def _inputs(name: str, batch: Batch) -> list[Any]:
    """Returns the inputs of a field's encoder: the field, and the mask that goes with it, if there is one."""
    field, mask = getattr(batch, name, None), getattr(batch, f"{name.removesuffix('s')}_mask", None)
    if field is None:
        raise ValueError(f"batch: found no {name}; expected it, or a column of False for it in present.")
    return [field] if mask is None else [field, mask]


def _chosen(values: Tensor | Sequence[str], rows: Tensor) -> Tensor | tuple[str, ...]:
    """Returns the values of these rows; a tensor elsewhere is sent the numbers of the rows without a wait."""
    if isinstance(values, Tensor):
        return values[rows.to(values.device, non_blocking=True)]
    return tuple(values[i] for i in rows.tolist())


def _spread(found: Iterable[Tensor], rows: Tensor, count: int) -> tuple[Tensor, ...]:
    """Spreads what was found for these rows alone, each (b, ...), to (B, ...), zero in the others."""
    whole = tuple(x.new_zeros(count, *x.shape[1:]) for x in found)
    for x, part in zip(whole, found, strict=True):
        x[rows.to(x.device, non_blocking=True)] = part
    return whole


def _check_encoders(encoders: Mapping[str, nn.Module], fusion: Fusion) -> None:
    if len(encoders) != len(fusion.dims):
        raise ValueError(f"encoders: found {len(encoders)}; expected {len(fusion.dims)}, one for each of the fusion's.")
    for (name, encoder), dim in zip(encoders.items(), fusion.dims, strict=True):
        found = getattr(encoder, "out_dim", dim)
        if found != dim:
            raise ValueError(
                f"encoders[{name!r}]: found vectors of length {found}; expected {dim}, as the fusion does."
            )


class Captioner(nn.Module):
    r"""A network that describes an image word by word, and attends to it for each (Xu et al., 2015).

    A gated recurrent unit reads the caption so far; its state :math:`h_t` attends to the cells :math:`k_i` of the
    image, the states of the image encoder's sequence, and both together tell the next word:

    .. math::
        \alpha_t = \operatorname{softmax}_i \frac{h_t^\top k_i}{\sqrt{d}}, \qquad
        p(w_{t+1} \mid w_{\le t}, x) = \operatorname{softmax} W \operatorname{ReLU}
        \Bigl(U \Bigl[h_t, \sum_i \alpha_{ti} k_i\Bigr]\Bigr)

    Args:
        image_encoder: gives the cells, (B, T, image_encoder.out_dim).
        vocabulary: the words that it can say.
        width: d, the length of an embedded word, of the recurrent state and of a cell.
    """

    def __init__(self, image_encoder: Encoder, vocabulary: Vocabulary, *, width: int = 128) -> None:
        super().__init__()
        self.image_encoder, self.vocabulary = image_encoder, vocabulary
        self.to_cell = nn.Linear(image_encoder.out_dim, width)
        self.embed = nn.Embedding(len(vocabulary), width, padding_idx=PAD)
        self.read = nn.GRU(width, width, batch_first=True)
        self.combine = nn.Linear(2 * width, width)
        self.to_word = nn.Linear(width, len(vocabulary))

    def forward(self, image: Tensor, tokens: Tensor) -> Tensor:
        """Maps images (B, C, H, W) and tokens (B, T) to logits of the word after each, (B, T, words)."""
        logits, _ = self._read_on(tokens, *self._look(image))
        return logits

    def loss(self, image: Tensor, tokens: Tensor, token_mask: Tensor) -> Tensor:
        r"""Computes the cross-entropy of each next word after the true words before it.

        .. math:: -\frac{1}{\sum_{b,t} m_{bt}} \sum_{b,t} m_{bt} \log p(w_{bt} \mid w_{b,<t}, x_b)

        over all words after ``<bos>`` that the mask names: padding counts for nothing. To give it the true words, not
        its own, is called teacher forcing (Williams & Zipser, 1989).

        Args:
            image: (B, C, H, W) images.
            tokens: (B, T) int64 captions from ``<bos>`` to ``<eos>``, padded at the end.
            token_mask: (B, T) bool, True where there is a token.

        Raises:
            ValueError: Tokens of another shape or type, or that the vocabulary lacks (which on a GPU is not looked at
                in training); or what the encoder refuses.
        """
        check_tokens(tokens, token_mask, self.embed.num_embeddings, training=self.training)
        if len(tokens) != len(image) or tokens.shape[1] < 2:
            expected = f"({len(image)}, T), a caption of at least <bos> and <eos> for each image"
            raise ValueError(f"tokens: found shape {tuple(tokens.shape)}; expected {expected}.")
        logits = self(image, tokens[:, :-1])
        targets = tokens[:, 1:].masked_fill(~token_mask[:, 1:], IGNORED)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)

    def generate(self, image: Tensor, *, max_words: int = 40) -> list[str]:
        """Writes a caption for each image: always the most likely next word, until ``<eos>`` or ``max_words``."""
        with evaluating(self):
            cells, mask = self._look(image)
            caption, state = torch.full((len(image), 1), BOS, device=image.device), None
            for _ in range(max_words):
                logits, state = self._read_on(caption[:, -1:], cells, mask, state)
                logits[..., [PAD, UNK, BOS]] = -torch.inf  # what a caption must not say
                caption = torch.cat([caption, logits.argmax(dim=-1)], dim=1)
                if (caption == EOS).any(dim=1).all():
                    break
            return self.vocabulary.decode(caption)

    def _look(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the cells of the image, (B, T, width), and their mask, (B, T)."""
        cells, mask = self.image_encoder.sequence(image)
        return self.to_cell(cells), mask

    def _read_on(
        self, tokens: Tensor, cells: Tensor, mask: Tensor, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns logits (B, T, words) of the words after these, and the recurrent state (1, B, width) after them."""
        read, state = self.read(self.embed(tokens), state)
        seen = F.scaled_dot_product_attention(read, cells, cells, attn_mask=mask[:, None])
        return self.to_word(torch.relu(self.combine(torch.cat([read, seen], dim=2)))), state
