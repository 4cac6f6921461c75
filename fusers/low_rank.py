"""Low-rank fusion: the tensor-fusion layer with its weight tensor factorised by modality, so no tensor is ever built.

Zhun Liu, Ying Shen, Varun Bharadhwaj Lakshminarasimhan, Paul Pu Liang, AmirAli Bagher Zadeh, Louis-Philippe Morency,
"Efficient Low-rank Multimodal Fusion With Modality-Specific Factors", ACL 2018. https://arxiv.org/abs/1806.00064

h = sum over ranks r of w_r * prod over m of (F_m[r] [1; z_m]), plus a bias. The rank weights w are trained, as in the
released code.

Compared with Justin1904/Low-rank-Multimodal-Fusion@ea47551: largest difference 2e-16 (the fused vector from three
embeddings).

Ours: z_m is one hidden layer on the modality's mean over time (per frame: on the step), where the released code has
batch normalisation, three layers and, for text, an LSTM; the factors start so that a product of many of them neither
vanishes nor explodes; the shared head follows, where the paper's h is the answer itself. An absent modality has
z_m = 0: its constant row remains.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from fusionbench.api import Choice, Fuser, Head, Projections, Range, Spec, Streams


class LowRank(Fuser):
    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Choice(32, 64, 128), "width of an embedding, and of the fused vector"] = 64,
        rank: Annotated[int, Range(1, 16), "terms in the sum"] = 4,
    ):
        super().__init__(spec)
        self.embed = Projections(
            spec, width, lambda dim, w: nn.Sequential(nn.Linear(dim, w), nn.ReLU(), nn.Linear(w, w))
        )
        # Entries of variance 1 / width, and a constant row about one, keep a product of many factors from vanishing.
        scale = torch.cat([torch.ones(1, 1), torch.full((width, 1), width**-0.5)])
        self.factors = nn.ParameterDict(
            {m: nn.Parameter(torch.randn(rank, width + 1, width) * scale) for m in spec.dims}
        )
        self.weights = nn.Parameter(torch.randn(rank) * rank**-0.5)
        self.bias = nn.Parameter(torch.zeros(width))
        self.head = Head(width, spec.out)

    def forward(self, streams: Streams) -> Tensor:
        return self.head(self.fuse(self.embeddings(streams)))

    def embeddings(self, streams: Streams) -> dict[str, Tensor]:
        """modality -> (B, S, width), zeros where it is absent."""
        return {m: s.x for m, s in self.embed({m: self.pool(streams[m]) for m in self.spec.dims}).items()}

    def fuse(self, embeddings: dict[str, Tensor]) -> Tensor:
        """Equation 6 of the paper: embeddings -> (B, S, width)."""
        product = torch.ones_like(self.bias)
        for m, z in embeddings.items():
            constant, rows = self.factors[m][:, 0], self.factors[m][:, 1:]
            product = product * (torch.einsum("bsd,rdh->bsrh", z, rows) + constant)  # (B, S, rank, width)
        return torch.einsum("bsrh,r->bsh", product, self.weights) + self.bias
