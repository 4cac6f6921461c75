"""Modalities that are not there: whole ones, the lattice of their subsets, and samples that lose one at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor

from fusionbench.api import Context, Corruption, Stream, Streams, UsageError, keyed


class Missing(Corruption):
    """The whole modality is absent from every sample; announced, and the only severity is 1."""

    name = "missing"
    announced = True
    ladder = (1.0,)

    def damage(self, stream: Stream, amount: float, keys: Tensor, context: Context, modality: str) -> Stream:
        return stream.absent()

    @staticmethod
    def realised(before: Stream, after: Stream) -> float:
        return _lost(before, after)


class Absent(Corruption):
    """Each sample loses the modality completely at random, announced; the ladder is the rate of loss.

    Modalities are lost independently, except that **every sample keeps at least one of all its modalities**: where
    all that it has would go, the one with the highest draw stays. So the realised rate is the nominal one for one
    target beside others that stay, and lower for `all` (M modalities: r - r^M / M). A sample that has lost a
    modality at one severity has lost it at all higher ones.
    """

    name = "absent"
    announced = True
    ladder = (0.1, 0.3, 0.5, 0.7, 0.9)

    def _damage_all(
        self, streams: Streams, targets: Sequence[str], amount: float, keys: Mapping[str, Tensor], context: Context
    ) -> Streams:
        device = next(iter(streams.values())).mask.device
        draws = torch.stack([keyed.uniform(keys[m].to(device), ()) for m in streams], 1)
        return drop_modalities(streams, dict.fromkeys(targets, amount), draws, keep_one=True)

    @staticmethod
    def realised(before: Stream, after: Stream) -> float:
        return _lost(before, after)

    @staticmethod
    def example() -> tuple[Streams, Context]:
        """Many small samples; of many modalities, so that the one which is kept hardly lowers the rate of `all`."""
        rows = 50_000
        stream = Stream(torch.ones(rows, 1, 1), torch.ones(rows, 1, dtype=torch.bool))
        return {m: stream for m in "abcdefghij"}, Context({})


def drop_modalities(
    streams: Streams, rates: Mapping[str, float | Tensor], uniforms: Tensor, keep_one: bool = True
) -> Streams:
    """Modality m of sample b becomes absent where uniforms[b, m] < rates[m]; a pure function that can be vmapped.

    With `keep_one`, a sample that would lose all that it has keeps the modality with the largest draw over rate, so
    what is lost at some rates is lost at any common multiple of them too.

    Args:
        rates: modality -> rate in [0, 1] (a number, or a scalar tensor, which is not checked); 0 where not named.
        uniforms: (B, M) in [0, 1), columns in the order of `streams`.

    Raises:
        UsageError: a rate of a modality that is not there, or outside 0 to 1.
    """
    for modality, rate in rates.items():
        if modality not in streams:
            raise UsageError(f"a missing rate is given for {modality!r}; there are {', '.join(streams)}")
        if not isinstance(rate, Tensor) and not 0 <= rate <= 1:
            raise UsageError(f"the missing rate of {modality} lies between 0 and 1, not {rate}")
    columns = [(uniforms[:, i], rates.get(m, 0.0)) for i, m in enumerate(streams)]
    present = torch.stack([s.present for s in streams.values()], 1)  # (B, M)
    lost = present & torch.stack([draw < rate for draw, rate in columns], 1)
    if keep_one:
        worth = torch.where(lost, torch.stack([draw / rate for draw, rate in columns], 1), -1.0)
        kept = torch.arange(len(streams), device=lost.device) == worth.argmax(1, keepdim=True)
        lost = lost & ~(kept & (lost == present).all(1, keepdim=True))
    return {m: Stream(s.x, s.mask & ~lost[:, i, None]) for i, (m, s) in enumerate(streams.items())}


def subsets(modalities: Sequence[str]) -> list[str]:
    """The lattice: `missing:...` for every set of missing modalities but the empty and the whole one, small ones first.

    >>> subsets(["a", "b", "c"])
    ['missing:a', 'missing:b', 'missing:c', 'missing:a+b', 'missing:a+c', 'missing:b+c']
    """
    return [
        f"missing:{'+'.join(lost)}" for size in range(1, len(modalities)) for lost in combinations(modalities, size)
    ]


def _lost(before: Stream, after: Stream) -> float:
    return float(1 - after.present.sum() / before.present.sum())
