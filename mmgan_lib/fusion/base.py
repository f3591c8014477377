"""The abstract class of all fusions, and modality dropout."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmgan_lib.checks import check_shape


class Fusion(nn.Module, ABC):
    """The base of fusions of several modalities' vectors into one: ``fusion(inputs, mask=None)``.

    A strategy is a subclass that writes :meth:`fuse`. The linear layers that lead to ``out_dim`` stand here: one for
    each modality before ``fuse`` where the class says ``aligned = True``, so that it gets vectors of one length; or one
    after it where the strategy passes the ``raw_dim`` of what it makes. A strategy with neither gives ``out_dim``
    numbers by layers of its own.

    What stands where the mask says that a modality is missing has no effect whatever, not on the result and not on a
    gradient, even if it is not a number: zeros take its place before anything is computed.

    Args:
        dims: D_m, the length of each modality's vector, in the order of the inputs.
        out_dim: length of the shared vector; None for the strategy's raw vector, where it has one: aligned vectors
            are then taken as they are, and have to have the same length.
        raw_dim: length of the raw vector; 0 where there is none.
        bias: whether the linear layers before ``fuse`` have one.

    Raises:
        ValueError: too few modalities, a length below 1, or no ``out_dim`` where the strategy has no raw vector.
    """

    least = 1  # modalities that the strategy needs
    aligned = False  # whether fuse gets vectors of one length
    takes_sequences = False  # whether fuse gets sequences (B, T_m, D_m), and a mask (B, T_m) for each

    def __init__(self, dims: Sequence[int], out_dim: int | None = None, *, raw_dim: int = 0, bias: bool = True) -> None:
        super().__init__()
        name = type(self).__name__
        if len(dims) < self.least or min(dims, default=0) < 1:
            raise ValueError(f"dims is {list(dims)}; {name} expected {self.least} or more lengths of at least 1.")
        if self.aligned and len(set(dims)) == 1:
            raw_dim = dims[0]
        self.dims, self.out_dim = tuple(dims), raw_dim if out_dim is None else out_dim
        if self.out_dim < 1:
            why = "which has no raw vector here: expected" if out_dim is None else "expected"
            raise ValueError(f"out_dim is {out_dim} for {name}, {why} at least 1.")
        self.project = nn.ModuleList(nn.Identity() for _ in dims)
        self.to_out = nn.Identity()
        if self.aligned and out_dim:
            self.project = nn.ModuleList(nn.Linear(dim, out_dim, bias=bias) for dim in dims)
        elif raw_dim and out_dim:
            self.to_out = nn.Linear(raw_dim, out_dim)

    @abstractmethod
    def fuse(self, inputs: list[Tensor], mask: Tensor | list[Tensor]) -> Tensor:
        """Computes the strategy's formula.

        Args:
            inputs: for each modality (B, D_m), zero where it is missing, of one length D if ``aligned``; or the
                sequences (B, T_m, D_m), zero where there is no state.
            mask: (B, M) bool, True where sample b has modality m; of sequences (B, T_m) for each.

        Returns:
            The shared vector (B, out_dim), or the raw one (B, raw_dim).
        """

    def forward(self, inputs: Sequence[Tensor], mask: Tensor | Sequence[Tensor] | None = None) -> Tensor:
        """Maps vectors (B, D_m), one for each modality, to the shared vector (B, out_dim).

        Args:
            inputs: the vectors; where the fusion ``takes_sequences``, (B, T_m, D_m), and a vector is one of length 1.
            mask: (B, M) bool, True where sample b has modality m; for sequences also one (B, T_m) for each modality,
                True where there is a state, so that a modality without any is missing; None if nothing is.

        Raises:
            ValueError: another number of inputs, another shape, or a mask that is none.
        """
        return self.to_out(self.fuse(*self.prepare(inputs, mask)))

    def prepare(
        self, inputs: Sequence[Tensor], mask: Tensor | Sequence[Tensor] | None = None
    ) -> tuple[list[Tensor], Tensor | list[Tensor]]:
        """Checks what a call takes, and makes of it what :meth:`fuse` takes."""
        if len(inputs) != len(self.dims):
            raise ValueError(f"inputs: found {len(inputs)}; expected {len(self.dims)}, one for each modality.")
        if self.takes_sequences:
            inputs = [x[:, None] if x.ndim == 2 else x for x in inputs]
        axes = ("T",) if self.takes_sequences else ()
        for m, (x, dim) in enumerate(zip(inputs, self.dims, strict=True)):
            check_shape(f"inputs[{m}]", x, len(inputs[0]) if m else "B", *axes, dim)
        masks = _masks(inputs, mask)
        prepared = []
        for project, x, there in zip(self.project, inputs, masks, strict=True):
            missing = ~there[..., None]
            prepared.append(project(x.masked_fill(missing, 0)).masked_fill(missing, 0))
        return prepared, masks if self.takes_sequences else torch.stack(masks, dim=1)

    def extra_repr(self) -> str:
        """Returns the lengths that come in, and the one that goes out."""
        return f"{list(self.dims)} -> {self.out_dim}"


def _masks(inputs: Sequence[Tensor], mask: Tensor | Sequence[Tensor] | None) -> list[Tensor]:
    """Returns for each input a mask of all its axes but the last."""
    if mask is None:
        return [torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device) for x in inputs]
    if isinstance(mask, Tensor):
        expected = (len(inputs[0]), len(inputs))
        if mask.dtype != torch.bool or mask.shape != expected:
            raise ValueError(f"mask: found {tuple(mask.shape)} {mask.dtype}; expected {expected} torch.bool.")
        pairs = zip(mask.unbind(dim=1), inputs, strict=True)
        return [there if x.ndim == 2 else there[:, None].expand(x.shape[:2]) for there, x in pairs]
    found = [(tuple(there.shape), there.dtype) for there in mask]
    if found != [(tuple(x.shape[:-1]), torch.bool) for x in inputs]:
        shown = ", ".join(f"{shape} {dtype}" for shape, dtype in found)
        expected = ", ".join(f"{tuple(x.shape[:-1])}" for x in inputs)
        raise ValueError(f"mask: found {shown}; expected {expected}, all torch.bool.")
    return list(mask)


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
