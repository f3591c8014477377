"""A vocabulary of words, and a recurrent network that reads them."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mmgan_lib.checks import check_texts, check_tokens
from mmgan_lib.encoders.base import Encoder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("<pad>", "<unk>", "<bos>", "<eos>")
PAD, UNK, BOS, EOS = range(4)
WORD = r"\w+(?:[-']\w+)*|[^\w\s\x1c-\x1f]"  # letters, hyphens and apostrophes inside; or one punctuation mark


class Vocabulary(nn.Module):
    """The words that a model knows, each with a number: 0 to 3 are padding, unknown, begin and end.

    A text is split at spaces and punctuation and made lower-case. The spelling of the words is a buffer, so that it is
    saved and loaded with the weights that were trained for these words.

    Args:
        words: numbered from 4 on, without those four; :meth:`of` collects them from texts.

    Raises:
        ValueError: No words, a word twice, or one that is empty, holds a space or a capital letter.

    >>> vocabulary = Vocabulary(["a", "red", "circle"])
    >>> tokens, mask = vocabulary.encode(["A red circle", "a blue circle is red"])
    >>> tokens
    tensor([[2, 4, 5, 6, 3, 0, 0],
            [2, 4, 1, 6, 1, 5, 3]])
    >>> vocabulary.decode(tokens)
    ['a red circle', 'a <unk> circle <unk> red']
    """

    def __init__(self, words: Sequence[str]) -> None:
        super().__init__()
        bad = [word for word in words if word.lower().split() != [word] or word in SPECIAL]
        if bad or not words or len(set(words)) < len(words):
            found = f"the word {bad[0]!r}" if bad else f"{len(words)} words, {len(set(words))} of them different"
            raise ValueError(
                f"words: found {found}; expected different lower-case words without spaces, and none of {SPECIAL}."
            )
        spelling = torch.tensor(list("\n".join(words).encode()), dtype=torch.uint8)
        self.register_buffer("spelling", spelling)

    @classmethod
    def of(cls, texts: Iterable[str], *, size: int = 10_000) -> "Vocabulary":
        """Collects the ``size`` most frequent words of ``texts``, the most frequent first; ties go by the alphabet.

        Raises:
            ValueError: No texts, one that is not a string or holds half a surrogate pair, or none with a word.

        >>> Vocabulary.of(["a red circle", "a blue circle"]).words[4:]
        ('a', 'circle', 'blue', 'red')
        """
        from tokenizers.trainers import WordLevelTrainer

        texts = texts if isinstance(texts, str) else list(texts)
        check_texts(texts)
        tokenizer = _tokenizer(SPECIAL)
        trainer = WordLevelTrainer(vocab_size=size + len(SPECIAL), special_tokens=list(SPECIAL), show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
        return cls([tokenizer.id_to_token(i) for i in range(len(SPECIAL), tokenizer.get_vocab_size())])

    @property
    def words(self) -> tuple[str, ...]:
        """All words by number, the four special ones first."""
        return SPECIAL + tuple(bytes(self.spelling.tolist()).decode().split("\n"))

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Returns tokens (B, T) int64, ``<bos> words <eos>`` padded to the longest text, and their mask (B, T) bool.

        Nothing is cut off, however long a text is. Words that the vocabulary lacks become ``<unk>``.

        Raises:
            ValueError: No texts, or one that is not a string or holds half a surrogate pair.
        """
        check_texts(texts)
        encoded = _cached_tokenizer(self.words).encode_batch(list(texts))
        tokens = torch.tensor([text.ids for text in encoded], device=self.spelling.device)
        return tokens, torch.tensor([text.attention_mask for text in encoded], device=self.spelling.device).bool()

    def decode(self, tokens: Tensor) -> list[str]:
        """Returns the texts that tokens (B, T) stand for, each up to its first ``<eos>``."""
        words = self.words
        return [_join(words[i] for i in _until_end(row) if i not in (PAD, BOS)) for row in tokens.tolist()]


class TextEncoder(Encoder):
    """A gated recurrent unit (Cho et al., 2014) that reads embedded words from left to right.

    A state knows its word and all words before it, and nothing of the padding that comes after the text.

    Args:
        vocabulary: the words that it can read.
        out_dim: length of the vector.
        width: length of an embedded word and of the recurrent state.
    """

    def __init__(self, vocabulary: Vocabulary, out_dim: int = 128, *, width: int = 128) -> None:
        super().__init__()
        self.vocabulary, self.out_dim = vocabulary, out_dim
        self.embed = nn.Embedding(len(vocabulary), width, padding_idx=PAD)
        self.read = nn.GRU(width, width, batch_first=True)
        self.to_vector = nn.Linear(width, out_dim)

    def encode_text(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Returns tokens (B, T) and their mask (B, T), as :meth:`Vocabulary.encode` does: what this encoder takes."""
        return self.vocabulary.encode(texts)

    def sequence(self, tokens: Tensor, token_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Maps tokens (B, T) int64, padded at the end, and their mask to a state for each, (B, T, out_dim).

        Raises:
            ValueError: Another shape or type, or a number that the vocabulary lacks; on a GPU the numbers are not
                looked at in training.
        """
        check_tokens(tokens, token_mask, self.embed.num_embeddings, training=self.training)
        states, _ = self.read(self.embed(tokens))
        return self.to_vector(states), token_mask


def _tokenizer(words: Sequence[str]) -> "Tokenizer":
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", BOS), ("<eos>", EOS)]
    )
    tokenizer.enable_padding(pad_id=PAD, pad_token="<pad>")
    return tokenizer


_cached_tokenizer = lru_cache(_tokenizer)


def _until_end(tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(EOS)] if EOS in tokens else tokens


def _join(words: Iterable[str]) -> str:
    return re.sub(r" (?=[.,;:!?])", "", " ".join(words))
