"""One look of several: a verdict at the level that spending leaves to it, corrected within its family."""

from __future__ import annotations

from fusionbench.stats.power import Resolution, detectable_from, needed_groups, needed_seeds
from fusionbench.stats.tests import interval_of, t_test
from fusionbench.stats.variance import Difference
from fusionbench.stats.verdicts import Decision, Verdict


def at_look(
    a: str,
    b: str,
    found: Difference,
    plan: Resolution,
    seeds: int,
    *,
    family: str = "",
    size: int = 1,
    level: float = 0.05,
    higher_is_better: bool = True,
    unit: str = "person",
) -> Verdict:
    """Row a against row b as it stands at the look of so many seeds.

    A difference may be called at any look, equivalence within the target at the last one only. The adjusted interval is
    that of this look's level, so that it holds over all looks and the family at once (Jennison & Turnbull 1989); the
    adjusted p is p on the scale of the family's level.

    Args:
        plan: its looks with their levels, which are already corrected within a family of `size`.
        level: of the whole family, over all looks.
    """
    tested, looks = plan.looks[seeds], tuple(plan.looks)
    low, high = interval_of(found, level)
    alow, ahigh = interval_of(found, tested)
    p = t_test(found)
    if found.value is None or found.variance is None or found.freedom is None or found.sources is None or p is None:
        return Verdict(
            a, b, found.value, None, None, None, None, None, None, family, size, "untested", plan.target, None,
            found.groups, found.seeds, unit, found.reason, repartitioned=found.repartitioned, looks=looks,
        )  # fmt: skip
    assert alow is not None
    assert ahigh is not None
    decision: Decision = "undecided"
    equivalent = seeds == looks[-1] and -plan.target < alow and ahigh < plan.target
    if p < tested:
        decision = "better" if (found.value > 0) == higher_is_better else "worse"
    elif equivalent:
        decision = "equivalent"
    reach = detectable_from(found.variance, found.freedom, tested)
    wanted = decision == "undecided" and plan.target < reach
    return Verdict(
        a, b, found.value, low, high, p, min(1.0, p * level / tested), alow, ahigh, family, size, decision,
        plan.target, reach, found.groups, found.seeds, unit,
        p_folds=found.p_folds, level=tested, freedom=found.freedom, equivalent=equivalent,
        settle_groups=needed_groups(found.sources, plan.target, seeds, tested, found.groups + 1) if wanted else None,
        settle_seeds=needed_seeds(found.sources, plan.target, found.groups, tested, seeds + 1) if wanted else None,
        higher_is_better=higher_is_better, repartitioned=found.repartitioned, looks=looks,
    )  # fmt: skip
