"""Many data sets: standings, signed ranks and anchors, against other libraries and by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as oracle

from fusionbench.errors import UsageError
from fusionbench.stats import (
    DataSet,
    Table,
    against_control,
    beats,
    ranks_differ,
    signed_rank,
    smallest_p,
    standings,
)

METHODS = ("concat", "jmt", "forest")


def table_of(score: float, rng: np.random.Generator, spread: float = 0.05) -> Table:
    """A mean over eight people and three seeds, its score given."""
    values = spread * rng.standard_normal((3, 8))
    values += score - values.mean()
    names = np.array([f"p{g}" for g in range(8)])
    return Table(
        names, np.full(8, 5), np.zeros(8, int), values.mean(1)[:, None], lambda w: w @ values.T / w.sum(1)[:, None]
    )


def set_of(name: str, domain: str, *scores: float, spread: float = 0.05) -> DataSet:
    rng = np.random.default_rng(len(name) + 17 * len(domain))
    rows = {m: table_of(s, rng, spread) for m, s in zip(METHODS, scores, strict=True)}
    return DataSet(name, domain, rows, chance=0.5, forest=0.8)


SETS = [
    set_of("watch", "motion", 0.80, 0.70, 0.75),
    set_of("phone", "motion", 0.60, 0.70, 0.65),
    set_of("engines", "machines", 0.90, 0.80, 0.70),
]


def test_domains_weigh_the_same_and_one_is_left_out_at_a_time() -> None:
    found = standings(SETS, draws=200)
    # ranks: watch 1 3 2, phone 3 1 2, engines 1 2 3; motion's mean 2 2 2
    assert {n: s.rank for n, s in found.items()} == pytest.approx({"concat": 1.5, "jmt": 2.0, "forest": 2.5})
    assert list(found) == ["concat", "jmt", "forest"]
    assert found["concat"].without == pytest.approx({"motion": 1.0, "machines": 2.0})
    # positions: watch 1, 2/3, 5/6; phone 1/3, 2/3, 1/2; engines 4/3, 1, 2/3
    assert found["concat"].position == pytest.approx(((1 + 1 / 3) / 2 + 4 / 3) / 2)
    assert found["jmt"].improvability == pytest.approx(((1 / 3 + 0) / 2 + (1 / 4)) / 2)
    for standing in found.values():
        assert 1 <= standing.low <= standing.rank <= standing.high <= 3


def test_positions_are_not_moved_by_a_new_row_but_ranks_are() -> None:
    rng = np.random.default_rng(0)
    more = [replace(s, rows={**s.rows, "new": table_of(0.95, rng)}) for s in SETS]
    before, after = standings(SETS, draws=50), standings(more, draws=50)
    for name in METHODS:
        assert after[name].position == before[name].position
        assert after[name].rank == before[name].rank + 1


def test_resampling_data_sets_matters_even_where_people_are_no_question() -> None:
    sure = [set_of(s.name, s.domain, *(t.scores.mean() for t in s.rows.values()), spread=1e-9) for s in SETS]
    one = standings(sure, draws=500)["concat"]
    # both domains drawn as motion and all their sets as the phone: 1 in 64, so 3 lies beyond the bound
    assert (one.low, one.high) == (1.0, 2.5)
    alone = standings(sure[2:], draws=100)["concat"]
    assert (alone.low, alone.high) == (1.0, 1.0)
    assert alone.without == {}


def test_of_an_error_less_is_better() -> None:
    turned = [
        replace(s, chance=-s.chance, forest=-s.forest, higher_is_better=False,
                rows={n: table_of(-float(t.scores.mean()), np.random.default_rng(1)) for n, t in s.rows.items()})
        for s in SETS
    ]  # fmt: skip
    assert {n: s.rank for n, s in standings(turned, draws=20).items()} == {"concat": 1.5, "jmt": 2.0, "forest": 2.5}
    assert standings(turned, draws=20)["jmt"].position == pytest.approx(standings(SETS, draws=20)["jmt"].position)
    assert beats(turned, "concat", "jmt").share == pytest.approx(beats(SETS, "concat", "jmt").share, abs=0.05)


def test_what_is_not_averaged_together_is_refused() -> None:
    with pytest.raises(UsageError, match="headline and synthetic"):
        standings([*SETS, replace(SETS[0], name="affect_sim", role="synthetic")])
    with pytest.raises(UsageError, match="twice"):
        standings([SETS[0], SETS[0]])
    with pytest.raises(UsageError, match="no better than chance"):
        standings([replace(SETS[0], forest=0.5)])
    with pytest.raises(UsageError, match="no method"):
        standings([SETS[0], replace(SETS[1], rows={})])
    with pytest.raises(UsageError, match="no data sets"):
        standings([])
    with pytest.raises(UsageError, match="moe is not on every data set"):
        beats(SETS, "moe", "jmt")


def test_a_new_data_set_is_never_certain() -> None:
    sure = [set_of(f"s{i}", f"d{i}", 0.9, 0.6, 0.7, spread=1e-3) for i in range(5)]
    found = beats(sure, "concat", "jmt")
    assert found.share == pytest.approx(1, abs=1e-6)
    assert found.probability == pytest.approx(6 / 7, abs=1e-6)
    assert found.low == pytest.approx(oracle.beta.ppf(0.025, 6, 1), abs=1e-6)
    assert beats(sure, "jmt", "concat").probability == pytest.approx(1 / 7, abs=1e-6)
    assert beats(SETS, "concat", "jmt").effective == pytest.approx(1 / (0.25**2 * 2 + 0.5**2))


@given(st.lists(st.integers(-6, 6), min_size=1, max_size=12))
def test_the_signed_rank_test_counts_every_pattern_of_signs(values: list[int]) -> None:
    known = np.array([v for v in values if v])
    if not len(known):
        assert signed_rank(values) == 1.0
        return
    ranks = oracle.rankdata(np.abs(known))
    signs = 1 - 2 * ((np.arange(2 ** len(known))[:, None] >> np.arange(len(known))) & 1)
    extreme = np.abs(signs @ ranks) >= abs((np.sign(known) * ranks).sum()) - 1e-9
    assert signed_rank(values) == pytest.approx(extreme.mean())


def test_the_signed_rank_test_is_scipys() -> None:
    values = np.random.default_rng(2).normal(0.4, 1, 17)
    assert signed_rank(values) == pytest.approx(oracle.wilcoxon(values, method="exact").pvalue)
    assert signed_rank(np.arange(1, 10)) == smallest_p(9) == 2 / 2**9


def test_so_few_sets_cannot_separate_so_many_rivals() -> None:
    few = against_control(SETS, "concat", ["jmt", "forest"])
    assert {a.decision for a in few.values()} == {"untested"}
    assert few["jmt"].reason == "3 data sets cannot separate 2 rivals: the smallest p is 0.25"
    assert few["jmt"].p is None
    # the six methods of a benchmark in all pairs: fifteen comparisons of nine sets
    assert smallest_p(9) > 0.05 / 15
    many = [set_of(f"s{i}", f"d{i % 3}", 0.7, 0.6 + 0.001 * i, 0.7 + 0.01 * (-1) ** i) for i in range(9)]
    found = against_control(many, "concat", ["jmt", "forest"])
    assert found["jmt"].decision == "worse"
    assert found["jmt"].adjusted == pytest.approx(2 * smallest_p(9))
    assert found["forest"].decision == "undecided"
    with pytest.raises(UsageError, match="moe is not"):
        against_control(many, "concat", ["moe"])


def test_a_critical_difference_takes_ten_sets() -> None:
    many = [set_of(f"s{i}", f"d{i}", 0.9, 0.6, 0.7) for i in range(10)]
    with pytest.raises(UsageError, match="10 data sets, there are 9"):
        ranks_differ(many[:9])
    assert ranks_differ(many).ranks == {"concat": 1.0, "forest": 2.0, "jmt": 3.0}
