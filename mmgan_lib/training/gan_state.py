"""The state of a GAN's run: the average of the generator, what is watched, and the history that is left behind."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmgan_lib import checkpoint
from mmgan_lib.encoders.base import detached_copy
from mmgan_lib.runtime import preserve_rng_state
from mmgan_lib.training.acceleration import lay_out
from mmgan_lib.training.state import Run

if TYPE_CHECKING:
    from mmgan_lib.datasets import Loader
    from mmgan_lib.training.config import GANConfig


@dataclass
class GANHistory:
    """The result of a run of :func:`mmgan_lib.training.fit_gan`.

    Attributes:
        discriminator_loss: (steps,) its loss at each step, penalties included.
        generator_loss: (steps,) its loss at each step.
        seconds: time spent in the loop, over all resumed parts.
        images_per_second: real samples that the discriminator saw in a second.
        watched: step → what ``watch`` returned there.
        ema: a copy of the generator with averaged weights, in eval mode: the one to sample from.
    """

    discriminator_loss: Tensor
    generator_loss: Tensor
    seconds: float
    images_per_second: float
    watched: dict[int, Any] = field(repr=False)
    ema: nn.Module = field(repr=False)


class GANRun(Run):
    """The run of a GAN: three networks, two optimisers, and what was watched."""

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        loader: Loader,
        config: GANConfig,
        *,
        watch: Callable[[int, nn.Module, nn.Module], Any] | None,
        watch_at: Collection[int],
        **options: Any,
    ) -> None:
        if outside := [step for step in watch_at if not 0 <= step <= config.steps]:
            raise ValueError(f"watch_at holds {outside[0]}; expected steps from 0 to {config.steps}.")
        self.config, self.watch, self.watch_at = config, watch, watch_at
        self.images_per_step = loader.batch_size * config.n_critic
        self.ema = detached_copy(generator).eval().requires_grad_(False)
        settings = vars(config) | {"batch_size": loader.batch_size, "loader_seed": loader.seed}
        super().__init__(
            models={"generator": generator, "discriminator": discriminator, "ema": self.ema},
            optimizers={
                "generator": config.optimizer_of(generator, config.optimizer, config.lr),
                "discriminator": config.optimizer_of(
                    discriminator,
                    config.optimizer_discriminator or config.optimizer,
                    config.lr if config.lr_discriminator is None else config.lr_discriminator,
                ),
            },
            schedule=config.schedule,
            losses=("discriminator's loss", "generator's loss"),
            steps=config.steps,
            settings={name: value for name, value in settings.items() if name not in ("steps", "checkpoint_every")},
            advice="Lower the learning rate, or constrain the discriminator.",
            notes={"watched": {}},
            checkpoint_every=config.checkpoint_every,
            **options,
        )

    def loop(self, name: str) -> Iterator[int]:
        """Yields the steps that are left, with a look at each that is watched, and at the end."""
        for step in super().loop(name):
            self.look(step)
            yield step
        self.look(self.steps)

    def look(self, step: int) -> None:
        """Watches the run, if this step is one to watch."""
        if self.watch is None or step not in self.watch_at or not self.processes.is_main:
            return
        with torch.no_grad(), preserve_rng_state(self.device):
            seen = on_cpu(self.watch(step, self.ema, self.models["discriminator"]))
        if self.folder:  # told now, and not at the next checkpoint
            checkpoint.check_state(f"What watch returned at step {step}", seen)
        self.notes["watched"][step] = seen

    def record(self, *losses: Tensor) -> None:
        """Ends a step: the average takes in the generator's weights, and the losses are noted."""
        update_ema(self.ema, self.models["generator"], decay=self.config.ema_at(self.done))
        self.note(*losses)
        self.finish()

    def shown(self, losses: list[float]) -> str:
        """Returns the newest losses as the progress bar shows them."""
        return "D {:.2f}, G {:.2f}, {:.0f} images/s".format(*losses, self.images_per_second)

    @property
    def images_per_second(self) -> float:
        """Real samples that the discriminator saw in a second."""
        return self.done * self.images_per_step / self.seconds

    def history(self) -> GANHistory:
        """Returns the result of the run; the networks lie in memory as they came."""
        lay_out(*self.models.values(), memory_format=torch.contiguous_format)
        losses = self.losses.cpu().unbind(1)
        return GANHistory(*losses, self.seconds, self.images_per_second, self.notes["watched"], self.ema)


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, *, decay: float) -> None:
    """Updates average ← decay · average + (1 - decay) · model for the weights; the buffers are copied.

    >>> average, model = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> update_ema(average, model, decay=0.0)
    >>> average.weight == model.weight
    tensor([[True]])
    """
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    for kept, current in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(current)


def on_cpu(value: Any) -> Any:
    """Copies a value with its tensors to the CPU, where later steps leave them alone."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {name: on_cpu(part) for name, part in value.items()}
    if hasattr(value, "_fields"):  # a NamedTuple
        return type(value)(*map(on_cpu, value))
    if isinstance(value, list | tuple):
        return (list if isinstance(value, list) else tuple)(on_cpu(part) for part in value)
    return value
