"""Fusion of sequences: each modality looks at the others."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmgan_lib.encoders.base import check_shape, masked_mean
from mmgan_lib.fusion.base import Aligned, checked_mask


class CrossAttention(Aligned):
    r"""Each state of a modality attends to the states of all the others (Vaswani et al., 2017; Tsai et al., 2019).

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
    takes_sequences = True

    def __init__(self, dims: Sequence[int], out_dim: int | None = None, *, heads: int = 4) -> None:
        super().__init__(dims, out_dim)
        if heads < 1 or self.out_dim % heads:
            raise ValueError(f"heads is {heads}; expected a number that divides out_dim, {self.out_dim}.")
        self.attend = nn.ModuleList(
            nn.MultiheadAttention(self.out_dim, heads, add_bias_kv=True, batch_first=True) for _ in dims
        )

    def forward(self, inputs: Sequence[Tensor], mask: Tensor | Sequence[Tensor] | None = None) -> Tensor:
        """Maps sequences (B, T_m, D_m), one for each modality, to the shared vector (B, out_dim).

        Args:
            inputs: the sequences; a vector (B, D_m) is one of length 1.
            mask: (B, M) bool, True where sample b has modality m; or for each modality (B, T_m) bool, True where there
                is a state, so that a modality without any is missing; None if nothing is.

        Raises:
            ValueError: another number of inputs, another shape, or a mask that is none.
        """
        states, masks = self.sequences(inputs, mask)
        states = [project(x) for project, x in zip(self.project, states, strict=True)]
        return self.combine(torch.stack(self.looked(states, masks), dim=1), torch.stack([m.any(1) for m in masks], 1))

    def looked(self, states: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        """The mean state of each modality, (B, out_dim), after it has looked at the others."""
        means = []
        for m, attend in enumerate(self.attend):
            others = torch.cat(states[:m] + states[m + 1 :], dim=1)
            unseen = ~torch.cat(masks[:m] + masks[m + 1 :], dim=1)
            seen, _ = attend(states[m], others, others, key_padding_mask=unseen, need_weights=False)
            means.append(masked_mean(states[m] + seen, masks[m]))
        return means

    def combine(self, x: Tensor, mask: Tensor) -> Tensor:
        """The mean of what is there."""
        return masked_mean(x, mask)

    def sequences(
        self, inputs: Sequence[Tensor], mask: Tensor | Sequence[Tensor] | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """States (B, T_m, D_m), zero where there is none, and their masks (B, T_m)."""
        self.check_count(inputs)
        inputs = [x[:, None] if x.ndim == 2 else x for x in inputs]
        for m, (x, dim) in enumerate(zip(inputs, self.dims, strict=True)):
            check_shape(f"inputs[{m}]", x, len(inputs[0]) if m else "B", "T", dim)
        if mask is None or isinstance(mask, Tensor):
            mask = checked_mask(mask, inputs)
            masks = [mask[:, m, None].expand(-1, x.shape[1]) for m, x in enumerate(inputs)]
        else:
            masks = list(mask)
            self.check_masks(masks, inputs)
        return [x.masked_fill(~m[..., None], 0) for x, m in zip(inputs, masks, strict=True)], masks

    def check_masks(self, masks: list[Tensor], inputs: list[Tensor]) -> None:
        """Raises ValueError unless there is a mask (B, T_m) for each of these sequences."""
        found = [(tuple(mask.shape), mask.dtype) for mask in masks]
        if found != [(tuple(x.shape[:2]), torch.bool) for x in inputs]:
            shown = ", ".join(f"{shape} {dtype}" for shape, dtype in found)
            expected = ", ".join(f"{tuple(x.shape[:2])}" for x in inputs)
            raise ValueError(f"mask: found {shown}; expected {expected}, all torch.bool.")
