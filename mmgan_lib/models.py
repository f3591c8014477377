"""Encoders put together with a head that does something."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan_lib.encoders import Encoder, Vocabulary, evaluating
from mmgan_lib.encoders.text import BOS, EOS, PAD, UNK, check_tokens

IGNORED = -100  # the target that cross_entropy leaves out


class Captioner(nn.Module):
    r"""Says what a picture shows, word by word, and looks at the picture for each (Xu et al., 2015).

    A gated recurrent unit reads the caption so far; its state :math:`h_t` attends to the cells :math:`k_i` of the
    picture, the states of the image encoder's sequence, and both together tell the next word:

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
        """Maps pictures (B, C, H, W) and tokens (B, T) to logits of the word after each, (B, T, words)."""
        logits, _ = self._read_on(tokens, *self._look(image))
        return logits

    def loss(self, image: Tensor, tokens: Tensor, token_mask: Tensor) -> Tensor:
        r"""The cross-entropy of each next word, given the true words before it.

        .. math:: -\frac{1}{\sum_{b,t} m_{bt}} \sum_{b,t} m_{bt} \log p(w_{bt} \mid w_{b,<t}, x_b)

        over all words after ``<bos>`` that the mask names: padding counts for nothing. To give it the true words, not
        its own, is called teacher forcing (Williams & Zipser, 1989).

        Args:
            image: (B, C, H, W) pictures.
            tokens: (B, T) int64 captions from ``<bos>`` to ``<eos>``, padded at the end.
            token_mask: (B, T) bool, True where there is a token.

        Raises:
            ValueError: Tokens of another shape or type, or that the vocabulary lacks; or what the encoder refuses.
        """
        check_tokens(tokens, token_mask, self.embed.num_embeddings)
        logits = self(image, tokens[:, :-1])
        targets = tokens[:, 1:].masked_fill(~token_mask[:, 1:], IGNORED)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)

    def generate(self, image: Tensor, *, max_words: int = 40) -> list[str]:
        """A caption for each picture: always the most likely next word, until ``<eos>`` or ``max_words``."""
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
        """The cells of the picture, (B, T, width), and their mask, (B, T)."""
        cells, mask = self.image_encoder.sequence(image)
        return self.to_cell(cells), mask

    def _read_on(
        self, tokens: Tensor, cells: Tensor, mask: Tensor, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, T, words) of the words after these, and the recurrent state (1, B, width) to go on from."""
        read, state = self.read(self.embed(tokens), state)
        seen = F.scaled_dot_product_attention(read, cells, cells, attn_mask=mask[:, None])
        return self.to_word(torch.relu(self.combine(torch.cat([read, seen], dim=2)))), state
