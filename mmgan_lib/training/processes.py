"""Several processes that train as one, on one machine or on many."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

if TYPE_CHECKING:
    from accelerate import Accelerator

    from mmgan_lib.datasets import Batch

Samples = TypeVar("Samples", "Batch", Tensor)


class Processes:
    r"""The processes that share a run of :func:`mmgan_lib.training.fit_gan`: those of an accelerator, or one alone.

    Each holds the same weights and draws the same joint batch of B samples, and works on a slice of it. The gradient of
    a mean over samples is the mean of the gradients of P equal slices :math:`S_p`, so averaged gradients are those of
    the joint batch, and the weights stay the same everywhere:

    .. math:: \nabla \frac1B \sum_{i=1}^B \ell_i = \frac1P \sum_{p=1}^P \nabla \frac PB \sum_{i \in S_p} \ell_i

    The networks stay as they are, where a wrapper (PyTorch's ``DistributedDataParallel``) would hide their attributes
    and could not follow the second derivatives of a penalty.
    """

    def __init__(self, accelerator: Accelerator | None) -> None:
        self.accelerator = accelerator
        self.index, self.count = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
        self.is_main = self.index == 0

    def share(self, joint: Samples) -> Samples:
        """Returns this process's slice of a joint batch, or of its noise.

        Raises:
            ValueError: the processes cannot have equally many samples.

        >>> Processes(None).share(torch.arange(4))
        tensor([0, 1, 2, 3])
        """
        each, rest = divmod(len(joint), self.count)
        if rest:
            raise ValueError(f"A batch has {len(joint)} samples; expected a multiple of the {self.count} processes.")
        return joint[self.index * each : (self.index + 1) * each]

    def mean(self, value: Tensor) -> Tensor:
        """Computes the mean of a tensor over the processes."""
        return self.accelerator.reduce(value, reduction="mean") if self.accelerator else value

    def wait(self) -> None:
        """Waits until every process has come to this point."""
        if self.accelerator:
            self.accelerator.wait_for_everyone()

    def begin(self, models: Iterable[nn.Module], optimizers: Iterable[Optimizer]) -> None:
        """Begins with the weights and random numbers of the main process; from then on averages gradients."""
        if self.accelerator is None:
            return
        from accelerate.utils import broadcast, synchronize_rng_states

        for model in models:
            broadcast(list(model.state_dict().values()))
        synchronize_rng_states(["cuda", "torch"] if self.accelerator.device.type == "cuda" else ["torch"])
        for optimizer in optimizers:
            optimizer.register_step_pre_hook(self._average_gradients)

    def _average_gradients(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Averages gradients just before a step, in one message for all weights."""
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        means = self.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, mean in zip(gradients, means.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))
