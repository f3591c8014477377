"""The two losses of a training step, and what goes into them: the part of fit_gan that a chapter shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from mmgan_lib.datasets import Batch
    from mmgan_lib.losses import GANLoss, Penalty

Player = Callable[..., Tensor]
Condition = Callable[["Batch"], Tensor | tuple[Tensor, ...]]


def discriminator_loss(
    discriminator: Player,
    loss: GANLoss,
    *,
    real: Tensor,
    fake: Tensor,
    condition: Sequence[Tensor] = (),
    penalties: Sequence[Penalty] = (),
    step: int = 0,
) -> Tensor:
    """Computes the loss on real and fake samples (B, ...), with the penalties that are due at this step.

    >>> from mmgan_lib.losses import GAN_LOSSES, R1
    >>> real, fake, wasserstein = torch.ones(4, 2), torch.zeros(4, 2), GAN_LOSSES["wasserstein"]
    >>> discriminator_loss(lambda x: 3 * x.sum(1), wasserstein, real=real, fake=fake, penalties=[R1(2.0)])  # -6 + 2 · 9
    tensor(12., grad_fn=<AddBackward0>)
    """
    due = [penalty for penalty in penalties if step % penalty.every == 0]
    sloped = any(penalty.of_logits for penalty in due)
    real, fake = (x.detach().requires_grad_(sloped) for x in (real, fake))

    def judge(x: Tensor) -> Tensor:
        return discriminator(x, *condition)

    logits = {"real_logits": judge(real), "fake_logits": judge(fake)}
    value = loss.discriminator(**logits)
    for penalty in due:
        value = value + penalty.every * (penalty.at(step) * penalty(judge, real=real, fake=fake, **logits))
    return value


def generator_loss(
    discriminator: Player, loss: GANLoss, *, real: Tensor, fake: Tensor, condition: Sequence[Tensor] = ()
) -> Tensor:
    """Computes the loss on the generator's fakes (B, ...), and on real samples where it looks at them."""
    fake_logits = discriminator(fake, *condition)
    real_logits = discriminator(real, *condition) if loss.generator_sees_real else None
    return loss.generator(real_logits=real_logits, fake_logits=fake_logits)


def players_inputs(
    batch: Batch | Tensor, generator: nn.Module, condition: Condition | None, *, share: Callable = lambda x: x
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Returns the real samples, the generator's arguments, and the discriminator's besides the samples.

    The condition follows the noise in the generator's arguments and the sample in the discriminator's. A generator
    without ``latent_dim`` has no noise. ``share`` takes this process's slice of the joint batch and of its noise.

    Raises:
        ValueError: the batch has no samples of the noise's type.
    """
    mine, dtype = share(batch), torch.get_default_dtype()
    real = mine if isinstance(mine, Tensor) else mine.image
    if real is None or real.dtype != dtype:
        found = "a batch without image" if real is None else f"samples of {real.dtype}"
        raise ValueError(f"loader: found {found}; expected samples of {dtype}, as the noise is.")
    with torch.no_grad():  # what makes the condition is not trained here
        told = () if condition is None else condition(mine)
    told = [told] if isinstance(told, Tensor) else [*told]
    latent_dim = getattr(generator, "latent_dim", None)
    noise = [] if latent_dim is None else [share(torch.randn(len(batch), latent_dim, device=real.device))]
    return real, noise + told, told


def optimizer_step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Steps once down the gradient of a loss, computed for the weights of this optimiser alone."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"] if weight.requires_grad]
    optimizer.zero_grad(set_to_none=True)
    loss.backward(inputs=weights)
    optimizer.step()
