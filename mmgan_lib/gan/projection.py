"""The head by which a discriminator judges how well a condition fits."""

from torch import Tensor, nn


class ProjectionHead(nn.Module):
    r"""The logit of features, to which a condition adds how well it matches them (Miyato & Koyama, 2018).

    .. math:: D(h, c) = w^\top h + b + \langle V c, h \rangle

    Args:
        features: length of :math:`h`.
        condition_dim: length of the condition vector, 0 for none.
    """

    def __init__(self, features: int, condition_dim: int = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1)
        self.projection = nn.Linear(condition_dim, features, bias=False) if condition_dim else None

    def forward(self, features: Tensor, condition: Tensor | None = None) -> Tensor:
        """Maps features (B, ..., F), at one place or at many, and the condition (B, D) to logits (B, ...)."""
        logits = self.linear(features).squeeze(-1)
        if self.projection is None:
            return logits
        asked = self.projection(condition)
        return logits + (asked.view(len(asked), *[1] * (features.ndim - 2), -1) * features).sum(dim=-1)
