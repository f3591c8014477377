"""Training batches as a pure function of the step."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from mmgan_lib.checks import check_not_negative
from mmgan_lib.datasets.batch import Batch


class Dataset(Protocol):
    """Data that a `Loader` can draw from: a `Batch`, a tensor (N, ...), or anything else with these two methods.

    `data[i]` is sample i: a tensor, a dict of tensors, numbers and strings, or a tuple of them. Data that gives a
    `Batch` is asked for all samples of a batch at once, by a tensor of indices, and may have `augmented(seed=, epoch=)`
    besides, which gives the data as training sees it in that epoch.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...


class Loader:
    """Training batches from data held on the device where that has room for it, or read from files ahead of time.

    The batch of step k depends only on the data, `batch_size`, `seed` and k. Training resumed at step k therefore sees
    exactly what training that never stopped would have seen, and there is no state of the loader to save.

    Each epoch has an order of its own, drawn from `seed` and the epoch's number, and drops the smaller batch at its end
    unless `drop_last` is False. With `shuffle=False` the order is that of the data, the last batch is kept unless
    `drop_last` is True, and nothing is augmented: the choice for evaluation.

    Samples that the data gives one by one (torchvision's data sets, a list of tuples or dicts, a Hugging Face data set
    in torch format) become a `Batch`: the keys of a dict name the fields, and `fields` those of a tuple.

    A `Batch` or a tensor moves to `device` (None: it stays where it is) once if, on a GPU, it takes less than half of
    the free memory; if it takes more, and for every other kind of data, each batch moves as it is drawn. Drawing from
    data on a GPU never waits for that GPU, unless the batch has text, which is chosen on the CPU.

    Data that reads files can be read ahead by `workers` processes while training goes on (0: by this one, when it is
    asked for); the batches are the same, bit for bit. Asked for another step than the next, they start anew from there.

    Raises ValueError where `batch_size` is not positive or no batch can be filled, and where `workers` is negative or
    would read what is in memory already.

    >>> loader = Loader(torch.arange(10), batch_size=4, seed=1)
    >>> len(loader), len(loader.batch(0)), bool((loader.batch(7) == loader.batch(7)).all())
    (2, 4, True)
    >>> list(Loader(torch.arange(5), batch_size=4, shuffle=False))
    [tensor([0, 1, 2, 3]), tensor([4])]
    >>> pairs = [(torch.zeros(3, 8, 8), 7), (torch.ones(3, 8, 8), 1)]
    >>> Loader(pairs, batch_size=2).batch(0)
    Batch of 2: image (3, 8, 8), label ()
    """

    def __init__(
        self,
        data: Dataset,
        batch_size: int,
        *,
        seed: int = 0,
        device: torch.device | str | None = None,
        shuffle: bool = True,
        drop_last: bool | None = None,
        fields: Sequence[str] = ("image", "label"),
        workers: int = 0,
    ) -> None:
        in_memory = isinstance(data, Batch | Tensor)
        self.batch_size, self.seed, self.shuffle, self.fields = batch_size, seed, shuffle, fields
        self.drop_last = shuffle if drop_last is None else drop_last
        self.device = torch.device(device or (data.device if in_memory else "cpu"))
        self.data = data.to(self.device) if in_memory and _fits(data, self.device) else data
        check_not_negative(seed=seed)
        if batch_size < 1 or len(self) == 0:
            raise ValueError(
                f"batch_size must lie between 1 and the {len(data)} samples there are, found {batch_size}."
            )
        if workers < 0 or (workers and in_memory):
            raise ValueError(f"workers must be positive for data that reads files, else 0, found {workers}.")
        self.workers = workers
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)
        self._passes = 0  # begun by iterating
        self._takes_many = True if in_memory else None  # indices at once; None: not known before a sample was seen
        self._ahead: Iterator[Batch | Tensor | str] | None = None
        self._next = 0  # the step that `_ahead` gives next

    def __len__(self) -> int:
        """Returns the number of batches in one epoch."""
        whole, rest = divmod(len(self.data), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Batch | Tensor]:
        """Passes over the data once: epoch 0 at first, epoch 1 next time, and so on."""
        self._passes += 1
        return self.epoch(self._passes - 1)

    def epoch(self, number: int) -> Iterator[Batch | Tensor]:
        """Yields the batches of epoch `number`, counted from 0."""
        return (self.batch(step) for step in range(number * len(self), (number + 1) * len(self)))

    def batch(self, step: int) -> Batch | Tensor:
        """Returns the batch of training step `step`, counted from 0 and going on through the epochs without end.

        Raises ValueError where samples cannot be joined into a batch.
        """
        check_not_negative(step=step)
        return (self._read_ahead(step) if self.workers else self._draw(step)).to(self.device)

    def _draw(self, step: int) -> Batch | Tensor:
        epoch, position = divmod(step, len(self))
        start = position * self.batch_size
        data = self.data
        if self.shuffle and hasattr(data, "augmented"):
            data = data.augmented(seed=self.seed, epoch=epoch)
        chosen = self._order_of(epoch)[start : start + self.batch_size]
        if self._takes_many is None:
            self._takes_many = isinstance(data[int(chosen[0])], Batch)
        return data[chosen] if self._takes_many else self._joined([data[i] for i in chosen.tolist()])

    def _joined(self, samples: list[Any]) -> Batch | Tensor:
        """Joins samples that the data gave one by one into a batch."""
        try:
            joined = default_collate(samples)
        except (TypeError, RuntimeError) as error:  # an image that is no tensor, two sizes, other keys, …
            raise ValueError(f"data: its samples cannot be joined into a batch ({error}).") from error
        if isinstance(samples[0], tuple | list):
            if len(joined) != len(self.fields):
                raise ValueError(f"data: found samples of {len(joined)} parts; expected {len(self.fields)}, as fields.")
            joined = dict(zip(self.fields, joined, strict=True))
        return Batch(**joined) if isinstance(joined, Mapping) else joined

    def _read_ahead(self, step: int) -> Batch | Tensor:
        """Returns the result of `_draw`, from workers that have gone on since the last step."""
        ahead, self._ahead = self._ahead, None  # kept only once it has given its batch
        if ahead is None or step != self._next:
            ahead = None  # ends the workers there are before others start
            ahead = iter(
                DataLoader(
                    range(step, sys.maxsize),
                    batch_size=None,
                    collate_fn=copy.copy(self)._draw_or_refusal,
                    num_workers=self.workers,
                    generator=torch.Generator(),  # else it would draw from the random numbers of training
                )
            )
        drawn = next(ahead)
        self._ahead, self._next = ahead, step + 1
        if isinstance(drawn, str):
            raise ValueError(drawn)
        return drawn

    def _draw_or_refusal(self, step: int) -> Batch | Tensor | str:
        """Calls `_draw` in a worker, which returns the text of an error: raised there, it would come with a trace."""
        try:
            return self._draw(step)
        except ValueError as error:
            return str(error)

    def _order_of(self, epoch: int) -> Tensor:
        """Returns the order of the samples in `epoch`, (N,) int64, kept beside the data until another is asked for."""
        if epoch != self._epoch:
            if self.shuffle:
                mixed = int(np.random.SeedSequence([self.seed, epoch]).generate_state(1)[0])  # unrelated for near seeds
                order = torch.randperm(len(self.data), generator=torch.Generator().manual_seed(mixed))
            else:
                order = torch.arange(len(self.data))
            self._epoch, self._order = (
                epoch,
                order.to(self.data.device if isinstance(self.data, Batch | Tensor) else "cpu"),
            )
        return self._order


def _fits(data: Batch | Tensor, device: torch.device) -> bool:
    return device.type != "cuda" or data.nbytes < torch.cuda.mem_get_info(device)[0] / 2
