"""Damage to what modalities have in common: their clock, and that they come from one sample."""

from __future__ import annotations

import torch
from torch import Tensor

from fusionbench.api import Context, Corruption, Stream, Streams, UsageError, keyed

from ._helpers import changed, count, order, place, take, walk, wide


class Lag(Corruption):
    """The stream comes late, silently; the ladder is the delay's share of each sample's real steps (rounded half up).

    Steps that nothing has reached yet repeat the first value and the mask stays, so nothing but the content tells.
    Targets lag alike: `lag:all` keeps them in step with each other and moves all of them against the labels.
    """

    name = "lag"
    announced = False
    level = "crossmodal"
    moves = True
    ladder = (0.02, 0.05, 0.1, 0.2, 0.4)

    def damage(self, stream: Stream, amount: float, keys: Tensor, context: Context, modality: str) -> Stream:
        late = place(stream.mask) - count(amount, stream.mask.sum(1))[:, None]
        return Stream(take(stream.x, order(stream.mask).gather(1, late.clamp(min=0))), stream.mask)

    @staticmethod
    def realised(before: Stream, after: Stream) -> float:
        """From how often a sample begins with its first value, where no two steps are alike."""
        first = take(after.x, order(after.mask)[:, :1])
        repeats = (after.mask & (after.x == first).flatten(2).all(2)).sum() - len(after)
        return float(repeats / before.mask.sum())

    @staticmethod
    def example() -> tuple[Streams, Context]:
        streams = {"a": walk(6, 500, 4), "b": walk(6, 500, 3)}
        return streams, Context({})


class Mismatch(Corruption):
    """Another sample's stream stands in, silently; the ladder is the share of samples to which this happens.

    Chance decides for each sample by itself, and draws its partner from the samples of `Context.others` that have the
    modality: never the sample itself (or its double), if there is another. The partner's steps come in their order,
    its last one held where it is shorter, and the sample keeps its own mask, so nothing but the content tells.
    """

    name = "mismatch"
    announced = False
    level = "crossmodal"
    moves = True
    ladder = (0.05, 0.1, 0.2, 0.35, 0.5)

    def damage(self, stream: Stream, amount: float, keys: Tensor, context: Context, modality: str) -> Stream:
        if modality not in context.others:
            raise UsageError(f"mismatch takes other samples' streams: Context.others has none for {modality!r}")
        others = context.others[modality].to(stream.x.device)
        candidates = others.present.nonzero()[:, 0]
        if len(candidates) == 0:
            return stream
        keys = keys.to(stream.x.device)
        pick = (keyed.uniform(keys, (), site=1).double() * len(candidates)).long()
        foreign = _retold(others[candidates[pick]], stream)
        itself = ((foreign == stream.x) | ~wide(stream.mask, stream.x)).flatten(1).all(1)
        foreign = torch.where(
            wide(itself, stream.x), _retold(others[candidates[(pick + 1) % len(candidates)]], stream), foreign
        )
        chosen = keyed.uniform(keys, ()) < amount  # (B,)
        return Stream(torch.where(wide(chosen, stream.x), foreign, stream.x), stream.mask)

    @staticmethod
    def realised(before: Stream, after: Stream) -> float:
        return float(changed(before, after).any(1).sum() / before.present.sum())

    @staticmethod
    def example() -> tuple[Streams, Context]:
        """Many samples of one step, all different."""
        x = keyed.normal(torch.tensor(1), (120_000, 1, 2))
        streams = {"a": Stream(x, torch.ones(x.shape[:2], dtype=torch.bool))}
        return streams, Context({}, others=streams)


def _retold(partner: Stream, stream: Stream) -> Tensor:
    """(B, T, *step): the partner's real steps at the stream's real steps, in order, the last one held."""
    end = (partner.mask.sum(1, keepdim=True) - 1).clamp(min=0)
    source = torch.minimum(place(stream.mask).clamp(min=0), end)
    return take(partner.x, order(partner.mask).gather(1, source))
