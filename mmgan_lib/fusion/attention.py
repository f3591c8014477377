"""Fusion of sequences: each modality looks at the others."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmgan_lib.encoders.base import masked_mean
from mmgan_lib.fusion.base import Fusion


class CrossAttention(Fusion):
    r"""Attention of each modality's states to those of all others (Vaswani et al., 2017; Tsai et al., 2019).

    With states :math:`X_m` (T_m, D), and :math:`X_{-m}` those of all other modalities one after another,

    .. math:: A_m = \operatorname{softmax}\Bigl(\frac{(X_m Q_m) (X_{-m} K_m)^\top}{\sqrt{d}}\Bigr) X_{-m} V_m O_m,
        \qquad h = \frac1M \sum_m \frac1{T_m} \sum_t (X_m + A_m)_t

    for one head; several heads work side by side on parts of length d. To the keys and values of the others a learned
    pair is added, "nothing to see here": a state may turn away, and where all others are missing it has to. Padding is
    left out everywhere, and the averages are over the modalities that are there; zeros if none is.

    The order of states makes no difference, unless the states themselves tell it. Vectors are sequences of one state.

    Args:
        dims: lengths of the states.
        out_dim: length of the shared vector; None if all states have the same length, which is then kept.
        heads: number of heads; ``out_dim`` is a multiple of it.

    Raises:
        ValueError: ``out_dim`` is no multiple of ``heads``, or what :class:`Fusion` refuses.
    """

    least = 2
    aligned = True
    takes_sequences = True

    def __init__(self, dims: Sequence[int], out_dim: int | None = None, *, heads: int = 4) -> None:
        super().__init__(dims, out_dim)
        if heads < 1 or self.out_dim % heads:
            raise ValueError(f"heads is {heads}; expected a number that divides out_dim, {self.out_dim}.")
        self.attend = nn.ModuleList(
            nn.MultiheadAttention(self.out_dim, heads, add_bias_kv=True, batch_first=True) for _ in dims
        )

    def fuse(self, inputs: list[Tensor], mask: list[Tensor]) -> Tensor:
        """Averages, over states and then over modalities, each state plus its attention to the others."""
        means = []
        for m, attend in enumerate(self.attend):
            others = torch.cat(inputs[:m] + inputs[m + 1 :], dim=1)
            unseen = ~torch.cat(mask[:m] + mask[m + 1 :], dim=1)
            seen, _ = attend(inputs[m], others, others, key_padding_mask=unseen, need_weights=False)
            means.append(masked_mean(inputs[m] + seen, mask[m]))
        return masked_mean(torch.stack(means, dim=1), torch.stack([there.any(dim=1) for there in mask], dim=1))
