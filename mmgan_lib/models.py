"""Encoders put together with a head that does something."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan_lib.encoders import Encoder, Vocabulary, evaluating
from mmgan_lib.encoders.text import BOS, EOS, PAD, UNK, check_tokens

IGNORED = -100  # the target that cross_entropy leaves out


class Captioner(nn.Module):
    r"""Says what a picture shows, word by word (Show and Tell: Vinyals et al., 2015).

    The vector of the picture is where a gated recurrent unit starts from; from each word of the caption it tells the
    next one:

    .. math:: p(w_1, \dots, w_T \mid x) = \prod_t p(w_t \mid w_{<t}, x)

    Args:
        image_encoder: maps pictures to vectors (B, image_encoder.out_dim).
        vocabulary: the words that it can say.
        width: length of an embedded word and of the recurrent state.
    """

    def __init__(self, image_encoder: Encoder, vocabulary: Vocabulary, *, width: int = 128) -> None:
        super().__init__()
        self.image_encoder, self.vocabulary = image_encoder, vocabulary
        self.start = nn.Linear(image_encoder.out_dim, width)
        self.embed = nn.Embedding(len(vocabulary), width, padding_idx=PAD)
        self.read = nn.GRU(width, width, batch_first=True)
        self.to_word = nn.Linear(width, len(vocabulary))

    def forward(self, image: Tensor, tokens: Tensor) -> Tensor:
        """Maps pictures (B, C, H, W) and tokens (B, T) to logits of the word after each, (B, T, words)."""
        states, _ = self.read(self.embed(tokens), self._begin(image))
        return self.to_word(states)

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
            state = self._begin(image)
            word = torch.full((len(image), 1), BOS, device=image.device)
            caption = [word]
            while len(caption) <= max_words and not (torch.cat(caption, dim=1) == EOS).any(dim=1).all():
                state_of_word, state = self.read(self.embed(word), state)
                logits = self.to_word(state_of_word)
                logits[..., [PAD, UNK, BOS]] = -torch.inf  # what a caption must not say
                word = logits.argmax(dim=-1)
                caption.append(word)
            return self.vocabulary.decode(torch.cat(caption, dim=1))

    def _begin(self, image: Tensor) -> Tensor:
        """The first recurrent state, (1, B, width)."""
        return torch.tanh(self.start(self.image_encoder(image))).unsqueeze(0)
