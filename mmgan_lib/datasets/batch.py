"""A batch: some samples, each told in several modalities. Models, loops and metrics are fed with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

Index = int | slice | Sequence[int] | Tensor


class Batch:
    """Samples in one or more modalities, each a field of any name.

    Every field has the same B samples along its first axis: a tensor, or a sequence of B strings. The names below have
    a meaning in this library, and are None in a batch that lacks them; a name of your own is a field like these. A
    modality that only *some* samples lack is told by `present`, never by a magic value.

    Raises ValueError if the fields differ in length, none is given, or one is neither a tensor nor strings.

    >>> batch = Batch(image=torch.zeros(3, 1, 32, 32), label=torch.tensor([7, 0, 1]), text=("seven", "zero", "one"))
    >>> batch
    Batch of 3: image (1, 32, 32), label (), text
    >>> batch[torch.tensor([2, 0])].text
    ('one', 'seven')
    >>> len(batch[:2]), len(batch[1])
    (2, 1)
    >>> batch.replace(label=None, depth=torch.ones(3, 32, 32))
    Batch of 3: image (1, 32, 32), text, depth (32, 32)
    """

    image: Tensor | None = None  #: (B, C, H, W) float32 in [-1, 1]
    tokens: Tensor | None = None  #: (B, T) int64
    token_mask: Tensor | None = None  #: (B, T) bool, True where there is a token
    waveform: Tensor | None = None  #: (B, S) float32 in [-1, 1], one channel
    audio: Tensor | None = None  #: (B, 1, mels, frames) float32, log-mel
    label: Tensor | None = None  #: (B,) int64
    text: tuple[str, ...] | None = None  #: B strings
    clip: Tensor | None = None  #: (B, F, C, H, W) float32 in [-1, 1], F frames
    attributes: Tensor | None = None  #: (B, A) int64, the true value of each attribute
    present: Tensor | None = None  #: (B, M) bool, True where sample b has modality m

    def __init__(self, **fields: Tensor | Sequence[str] | None) -> None:
        kept = {name: _field(name, value) for name, value in fields.items() if value is not None}
        lengths = {name: len(value) for name, value in kept.items()}
        if len(set(lengths.values())) != 1:
            found = ", ".join(f"{name} has {length}" for name, length in lengths.items()) or "no field"
            raise ValueError(f"The fields of a Batch must hold the same number of samples, found {found}.")
        vars(self).update(kept)

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"This batch has no {name}; it has {', '.join(vars(self))}.")

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"A Batch stays as it is; batch.replace({name}=…) gives a changed copy.")

    def __len__(self) -> int:
        return len(next(iter(vars(self).values())))

    def __repr__(self) -> str:
        shown = (f"{k} {tuple(v.shape[1:])}" if isinstance(v, Tensor) else k for k, v in vars(self).items())
        return f"Batch of {len(self)}: {', '.join(shown)}"

    def __getitem__(self, index: Index) -> Batch:
        """Returns the samples at `index`: an int (a batch of one), slice, list of ints, LongTensor or BoolTensor.

        Raises IndexError where there is no such sample.
        """
        if not isinstance(index, slice):
            index = torch.atleast_1d(torch.as_tensor(index))
            if index.dtype == torch.bool:
                index = self._chosen(index)
            elif len(index) == 0:
                index = index.long()  # of an empty list PyTorch makes floating point
        return Batch(**{name: _take(value, index) for name, value in vars(self).items()})

    def _chosen(self, mask: Tensor) -> Tensor:
        if mask.shape != (len(self),):
            raise IndexError(f"A mask over {len(self)} samples has shape ({len(self)},), found {tuple(mask.shape)}.")
        return mask.nonzero().squeeze(1)

    def replace(self, **changes: Tensor | Sequence[str] | None) -> Batch:
        """Returns the same batch but for these fields; None takes one away."""
        return Batch(**vars(self) | changes)

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    @property
    def device(self) -> torch.device:
        """The device of the tensors; the CPU for a batch of text alone."""
        return next((value.device for value in self._tensors().values()), torch.device("cpu"))

    @property
    def nbytes(self) -> int:
        """The number of bytes that the tensors take."""
        return sum(value.nbytes for value in self._tensors().values())

    def to(self, device: torch.device | str) -> Batch:
        """Returns the same batch with every tensor on `device`."""
        tensors, device = self._tensors(), torch.device(device)
        if all(tensor.device == device for tensor in tensors.values()):
            return self
        to_gpu = device.type == "cuda"  # towards the CPU an asynchronous copy could be read too early
        return self.replace(**{name: value.to(device, non_blocking=to_gpu) for name, value in tensors.items()})


def _field(name: str, value: Any) -> Tensor | tuple[str, ...]:
    """Returns the value of a field as it is kept, a sequence of strings as a tuple."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, list | tuple) and all(isinstance(text, str) for text in value):
        return tuple(value)
    raise ValueError(f"{name}: found a {type(value).__name__}; expected a tensor, or a list of strings.")


def _take(value: Tensor | tuple[str, ...], index: slice | Tensor) -> Tensor | tuple[str, ...]:
    if isinstance(value, Tensor) or isinstance(index, slice):
        return value[index]
    return tuple(value[i] for i in index.tolist())
