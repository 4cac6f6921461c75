"""Is the difference real? Intervals, paired tests, robustness measures and Shapley values. Numpy only on import.

The unit is the group (person or video); a score is the metric pooled over the folds of one seed, averaged over seeds,
unless a result says that it is a mean over folds. What is undefined is `None`, never 0 and never NaN.
"""

from fusionbench.stats.cells import (
    Cell,
    Components,
    Table,
    per_group_scores,
    score,
    share_hurt,
    tabulate,
    variance_components,
    worst_decile,
)
from fusionbench.stats.comparisons import (
    Comparison,
    Parts,
    compare,
    compare_family,
    holm,
    sentence,
    sign_flip,
    smallest_detectable_difference,
)
from fusionbench.stats.intervals import Interval, corrected_interval, corrected_test, corrected_variance, interval
from fusionbench.stats.ranks import (
    CriticalDifference,
    critical_difference,
    critical_difference_diagram,
    ranks,
    tied_ranks,
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
from fusionbench.stats.shapley import Help, fusion_help, interactions, shapley, verdict
from fusionbench.stats.sums import SUMS

__all__ = [
    "SUMS",
    "Cell",
    "Comparison",
    "Components",
    "CriticalDifference",
    "Help",
    "Interval",
    "Parts",
    "Table",
    "break_even",
    "compare",
    "compare_family",
    "corrected_interval",
    "corrected_test",
    "corrected_variance",
    "critical_difference",
    "critical_difference_diagram",
    "damaged",
    "drop",
    "effective_robustness",
    "fusion_help",
    "holm",
    "interactions",
    "interval",
    "missingness_area",
    "per_group_scores",
    "ranks",
    "relative_error",
    "retained",
    "score",
    "sentence",
    "shapley",
    "share_hurt",
    "sign_flip",
    "smallest_detectable_difference",
    "spread",
    "summary",
    "tabulate",
    "targets",
    "tied_ranks",
    "variance_components",
    "verdict",
    "worst",
    "worst_decile",
    "worst_subset",
]
