"""Multi-head attention in the variants that published methods differ by: biases, width of a head, dropout, mask."""

from __future__ import annotations

from torch import Tensor, nn

from fusionbench.api import Dropout, softmax_over


class Attention(nn.Module):
    """Queries, keys and values of `width` through `heads` heads of `head_width` (width / heads unless given).

    Dropout falls on the weights, which are not normalised again.
    """

    def __init__(
        self, width: int, heads: int, *, head_width: int | None = None, bias: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head_width if head_width else width
        self.query, self.key, self.value = (nn.Linear(width, inner, bias=bias) for _ in range(3))
        self.out = nn.Linear(inner, width)
        self.dropout = Dropout(dropout)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, Q, width) from query (B, Q, width), key and value (B, K, width), mask (B, Q or 1, K), True where to look.

        A query that may look at nothing gets the output's bias.
        """
        q, k, v = (
            split(layer(x), self.heads) for layer, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        weights = scores.softmax(-1) if mask is None else softmax_over(scores, mask.unsqueeze(1))
        return self.out((self.dropout(weights) @ v).transpose(1, 2).flatten(2))


def split(x: Tensor, heads: int) -> Tensor:
    """(B, T, heads * d) -> (B, heads, T, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
