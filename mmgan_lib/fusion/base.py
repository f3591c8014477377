"""What all fusions share: a look at what comes in, and zeros where a modality is missing."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmgan_lib.encoders.base import check_shape


class Fusion(nn.Module, ABC):
    """Vectors of several modalities in, one shared vector out: ``fusion(inputs, mask=None)``.

    What stands where the mask says that a modality is missing has no effect whatever, not on the result and not on a
    gradient, even if it is not a number: zeros take its place before anything is computed.

    Args:
        dims: D_m, the length of each modality's vector, in the order of the inputs.
        out_dim: length of the shared vector; None for the strategy's raw vector, where it has one.

    Raises:
        ValueError: too few modalities, a length below 1, or no ``out_dim`` where the strategy has no raw vector.
    """

    least = 1  # modalities that the strategy needs
    takes_sequences = False  # whether inputs can be (B, T_m, D_m)

    def __init__(self, dims: Sequence[int], out_dim: int | None = None) -> None:
        super().__init__()
        name = type(self).__name__
        if len(dims) < self.least or min(dims, default=0) < 1:
            raise ValueError(f"dims is {list(dims)}; {name} expected {self.least} or more lengths of at least 1.")
        self.dims = tuple(dims)
        raw_dim = self.raw_dim()
        if (raw_dim if out_dim is None else out_dim) < 1:
            why = "which has no raw vector here: expected" if out_dim is None else "expected"
            raise ValueError(f"out_dim is {out_dim} for {name}, {why} at least 1.")
        self.out_dim = raw_dim if out_dim is None else out_dim

    def raw_dim(self) -> int:
        """Length of the raw vector; 0 where there is none."""
        return 0

    @abstractmethod
    def fuse(self, inputs: list[Tensor], mask: Tensor) -> Tensor:
        """The strategy itself, on checked inputs that are zero where the mask (B, M) says so; gives (B, out_dim)."""

    def forward(self, inputs: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        """Maps vectors (B, D_m), one for each modality, to the shared vector (B, out_dim).

        Args:
            inputs: the vectors.
            mask: (B, M) bool, True where sample b has modality m; None if nothing is missing.

        Raises:
            ValueError: another number of inputs, another shape, or a mask that is none.
        """
        return self.fuse(*self.prepared(inputs, mask))

    def prepared(self, inputs: Sequence[Tensor], mask: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """The inputs, checked and zero where they are missing, and the mask, all True if there was none."""
        self.check_count(inputs)
        for m, (x, dim) in enumerate(zip(inputs, self.dims, strict=True)):
            check_shape(f"inputs[{m}]", x, len(inputs[0]) if m else "B", dim)
        mask = checked_mask(mask, inputs)
        return [x.masked_fill(~mask[:, m, None], 0) for m, x in enumerate(inputs)], mask

    def check_count(self, inputs: Sequence[Tensor]) -> None:
        """Raises ValueError unless there is an input for each modality."""
        if len(inputs) != len(self.dims):
            raise ValueError(f"inputs: found {len(inputs)}; expected {len(self.dims)}, one for each modality.")

    def extra_repr(self) -> str:
        """The lengths that come in, and the one that goes out."""
        return f"{list(self.dims)} -> {self.out_dim}"


class Whole(Fusion):
    """Makes a raw vector of all modalities; with ``out_dim``, a linear layer follows."""

    def __init__(self, dims: Sequence[int], out_dim: int | None = None) -> None:
        super().__init__(dims, out_dim)
        self.to_out = nn.Identity() if out_dim is None else nn.Linear(self.raw_dim(), out_dim)

    def forward(self, inputs: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        """Maps vectors (B, D_m), one for each modality, and their mask (B, M) to the shared vector (B, out_dim)."""
        return self.to_out(super().forward(inputs, mask))


class Aligned(Fusion):
    """Works on vectors of one length: with ``out_dim``, a linear layer for each modality brings them to that.

    Without ``out_dim`` the vectors are taken as they are, and have to have the same length.
    """

    def __init__(self, dims: Sequence[int], out_dim: int | None = None, *, bias: bool = True) -> None:
        super().__init__(dims, out_dim)
        self.project = nn.ModuleList(
            nn.Identity() if out_dim is None else nn.Linear(dim, out_dim, bias=bias) for dim in dims
        )

    def raw_dim(self) -> int:
        """The length that all have."""
        return self.dims[0] if len(set(self.dims)) == 1 else 0

    @abstractmethod
    def combine(self, x: Tensor, mask: Tensor) -> Tensor:
        """The strategy itself, on vectors of one length (B, M, D) that are zero where the mask (B, M) says so."""

    def fuse(self, inputs: list[Tensor], mask: Tensor) -> Tensor:
        """Brings the vectors to one length, and combines them."""
        x = torch.stack([project(x) for project, x in zip(self.project, inputs, strict=True)], dim=1)
        return self.combine(x.masked_fill(~mask[..., None], 0), mask)


def checked_mask(mask: Tensor | None, inputs: Sequence[Tensor]) -> Tensor:
    """The mask (B, M) of these inputs, all True if there was none; ValueError if it is another's."""
    shape = (len(inputs[0]), len(inputs))
    if mask is None:
        return torch.ones(shape, dtype=torch.bool, device=inputs[0].device)
    if mask.dtype != torch.bool or mask.shape != shape:
        raise ValueError(f"mask: found {tuple(mask.shape)} {mask.dtype}; expected {shape} torch.bool.")
    return mask


def modality_dropout(mask: Tensor, p: float, *, generator: torch.Generator | None = None) -> Tensor:
    r"""Drops modalities at random, but never the last one that a sample has (after Neverova et al., 2016).

    Each modality draws :math:`u_{bm}` uniformly from [0, 1), and stays if

    .. math:: u_{bm} \ge p \quad\text{or}\quad u_{bm} = \max_{k \text{ present}} u_{bk}

    so that a modality is dropped with probability p, except that of a sample that would lose all, one stays, any with
    the same chance.

    Args:
        mask: (B, M) bool, True where sample b has modality m.
        p: probability, from 0 to 1; with 1 each sample keeps exactly one.
        generator: source of the randomness.

    Raises:
        ValueError: ``p`` is no probability, or ``mask`` no mask.

    >>> mask = torch.tensor([[True, True, True], [False, True, False]])
    >>> modality_dropout(mask, 1.0).sum(dim=1)
    tensor([1, 1])
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p is {p}; expected a probability from 0 to 1.")
    if mask.dtype != torch.bool or mask.ndim != 2:
        raise ValueError(f"mask: found {tuple(mask.shape)} {mask.dtype}; expected (B, M) torch.bool.")
    draw = torch.rand(mask.shape, generator=generator, device=generator.device if generator else mask.device)
    draw = draw.to(mask.device).masked_fill(~mask, -1)
    return mask & ((draw >= p) | (draw == draw.amax(dim=1, keepdim=True)))
