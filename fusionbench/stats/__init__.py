"""Is the difference real? Tests, intervals, tiers, power, robustness measures and Shapley values. No torch.

The unit is the group (person or video); a score is the metric pooled over the folds of one seed, averaged over seeds,
unless a result says that it is a mean over folds. What is undefined is `None`, never 0 and never NaN.

A board asks in this order (all of it takes a `Table` a row):

    family(rows, reference, name, margin)   -> {row: Verdict}     one declared family, Holm within it
    describe(verdict, scale)                -> str                the one sentence that a verdict is shown as
    tiers(rows)                             -> Tiers              places (tier, rank interval) and all pairs' verdicts
    does_fusion_help(single, fused, validation) -> Fusion         both sides chosen on validation, nested by fold
    above_chance(family(rows, chance_row))  -> AboveChance        "nothing beats chance here"
    one_family(comparisons, name)           -> {key: Verdict}     comparisons of several benchmarks, Holm over all

and `difference(a, b)` gives the one variance behind a verdict, `Difference.sources` what it is made of (people, seeds,
residual), from which `detectable`, `power_of`, `needed_groups`, `needed_seeds`, `plan` and `resolve` answer questions
before anything is trained. Over many data sets: `standings`, `beats` and `against_control` on `DataSet`s.
"""

from fusionbench.stats.cells import (
    Cell,
    Components,
    Table,
    per_group_scores,
    score,
    share_hurt,
    tables,
    tabulate,
    variance_components,
    worst_decile,
)
from fusionbench.stats.choice import Choice, Fusion, choose, does_fusion_help
from fusionbench.stats.datasets import (
    Across,
    Beats,
    DataSet,
    Standing,
    against_control,
    beats,
    ranks_differ,
    signed_rank,
    smallest_p,
    standings,
)
from fusionbench.stats.intervals import Interval, corrected_test, corrected_variance
from fusionbench.stats.pooled import Jackknifed
from fusionbench.stats.power import (
    Resolution,
    detectable,
    equivalence_power,
    needed_groups,
    needed_seeds,
    plan,
    power_of,
    resolve,
    spending,
)
from fusionbench.stats.ranks import (
    FEWEST,
    CriticalDifference,
    critical_difference,
)
from fusionbench.stats.robustness import (
    break_even,
    damaged,
    drop,
    effective_robustness,
    missingness_area,
    relative_error,
    retained,
    spread,
    summary,
    targets,
    worst,
    worst_subset,
)
from fusionbench.stats.sequential import at_look
from fusionbench.stats.shapley import interactions, shapley, verdict
from fusionbench.stats.tests import Comparison, family, holm_steps, interval, interval_of, judged, one_family, t_test
from fusionbench.stats.tiers import Place, Tiers, tiers
from fusionbench.stats.variance import Difference, Sources, difference, influence, pooled
from fusionbench.stats.verdicts import AboveChance, Decision, Verdict, above_chance, describe, settles

__all__ = [
    "FEWEST",
    "AboveChance",
    "Across",
    "Beats",
    "Cell",
    "Choice",
    "Comparison",
    "Components",
    "CriticalDifference",
    "DataSet",
    "Decision",
    "Difference",
    "Fusion",
    "Interval",
    "Jackknifed",
    "Place",
    "Resolution",
    "Sources",
    "Standing",
    "Table",
    "Tiers",
    "Verdict",
    "above_chance",
    "against_control",
    "at_look",
    "beats",
    "break_even",
    "choose",
    "corrected_test",
    "corrected_variance",
    "critical_difference",
    "damaged",
    "describe",
    "detectable",
    "difference",
    "does_fusion_help",
    "drop",
    "effective_robustness",
    "equivalence_power",
    "family",
    "holm_steps",
    "influence",
    "interactions",
    "interval",
    "interval_of",
    "judged",
    "missingness_area",
    "needed_groups",
    "needed_seeds",
    "one_family",
    "per_group_scores",
    "plan",
    "pooled",
    "power_of",
    "ranks_differ",
    "relative_error",
    "resolve",
    "retained",
    "score",
    "settles",
    "shapley",
    "share_hurt",
    "signed_rank",
    "smallest_p",
    "spending",
    "spread",
    "standings",
    "summary",
    "t_test",
    "tables",
    "tabulate",
    "targets",
    "tiers",
    "variance_components",
    "verdict",
    "worst",
    "worst_decile",
    "worst_subset",
]
