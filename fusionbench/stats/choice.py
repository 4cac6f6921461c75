"""Does fusion help here? The best single row against the best fused row, both chosen on validation, fold by fold.

A choice made on the test groups flatters whichever side has more rows to choose from. Here both sides
are chosen on validation scores, within each fold, and only the chosen rows' test answers are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fusionbench.errors import UsageError
from fusionbench.stats.cells import Table
from fusionbench.stats.tests import family
from fusionbench.stats.variance import influence
from fusionbench.stats.verdicts import Decision, Verdict, counted, describe

Array = np.ndarray
Word = Literal["helps", "hurts", "makes no difference", "undecided", "untested"]
WORDS: dict[Decision, Word] = {
    "better": "helps",
    "worse": "hurts",
    "equivalent": "makes no difference",
    "undecided": "undecided",
    "untested": "untested",
}


@dataclass(frozen=True)
class Choice:
    """The row that validation chooses in each fold, and the table of what those rows answered.

    Attributes:
        by_fold: position of the fold -> name of the row; all the same where the choice is not nested.
        nested: chosen in each fold by that fold's own validation score; False where a group is tested by
            several folds, so that one row is chosen over all of them.
    """

    by_fold: tuple[str, ...]
    nested: bool
    table: Table

    @property
    def name(self) -> str:
        """The row, or `concat (3 folds), jmt (2)`."""
        names = list(dict.fromkeys(self.by_fold))
        if len(names) == 1:
            return names[0]
        counts = {name: self.by_fold.count(name) for name in names}
        first, *others = sorted(names, key=lambda name: -counts[name])
        return ", ".join(
            [f"{first} ({counted(counts[first], 'fold')})", *(f"{name} ({counts[name]})" for name in others)]
        )


#: From the row of each fold, the exact table of the answers that those rows gave.
Assemble = Callable[[tuple[str, ...]], Table]


def choose(
    rows: Mapping[str, Table],
    validation: Mapping[str, Array],
    higher_is_better: bool = True,
    assemble: Assemble | None = None,
) -> Choice:
    """The row with the best validation score (mean over seeds), fold by fold.

    Args:
        rows: name -> table, all over the same groups.
        validation: name -> (R, F) validation score of each run, folds in the order of `Table.by_fold`.
        assemble: makes the exact table of a choice; without it, folds that choose different rows are put
            together from influence values, which is exact to first order.

    Raises:
        UsageError: no rows, a row without validation scores, or different seeds in rows to put together.
    """
    if not rows:
        raise UsageError("there is no row to choose from: run one first")
    if absent := [name for name in rows if name not in validation or not np.isfinite(validation[name]).all()]:
        raise UsageError(f"{absent[0]} has no validation score in every fold: finish its row")
    first = next(iter(rows.values()))
    nested = bool((first.fold >= 0).all())
    names = list(rows)
    means = np.array([np.asarray(validation[name], dtype=float).mean(0) for name in names])  # (K, F)
    if means.shape[1] != first.by_fold.shape[1]:
        raise UsageError(f"validation scores are of {means.shape[1]} folds, the rows of {first.by_fold.shape[1]}")
    if not nested:
        means = np.broadcast_to(means.mean(1, keepdims=True), means.shape)
    best = means.argmax(0) if higher_is_better else means.argmin(0)
    by_fold = tuple(names[i] for i in best)
    if len(set(by_fold)) == 1:
        return Choice(by_fold, nested, rows[by_fold[0]])
    return Choice(by_fold, nested, (assemble or _stitched(rows))(by_fold))


def _stitched(rows: Mapping[str, Table]) -> Assemble:
    """Tables of a choice from influence values: the mean of each group's value in the row that its fold chose."""

    def assemble(by_fold: tuple[str, ...]) -> Table:
        used = {name: rows[name] for name in by_fold}
        first = used[by_fold[0]]
        if len({table.seeds for table in used.values()}) > 1:
            raise UsageError(f"{' and '.join(used)} have different seeds: finish the rows that validation chooses")
        each = {name: influence(table) for name, table in used.items()}
        values = np.stack([each[by_fold[fold]][:, g] for g, fold in enumerate(first.fold)], axis=1)  # (R, G)
        folds = np.stack([used[name].by_fold[:, fold] for fold, name in enumerate(by_fold)], axis=1)
        return replace(first, by_fold=folds, values=lambda weights: weights @ values.T / weights.sum(1, keepdims=True))

    return assemble


@dataclass(frozen=True)
class Fusion:
    """Does fusion help here? The two choices, and the verdict of fused against single."""

    single: Choice
    fused: Choice
    verdict: Verdict

    @property
    def word(self) -> Word:
        return WORDS[self.verdict.decision]

    def sentence(self, scale: float = 1.0) -> str:
        """One sentence, without a full stop."""
        start = "whether fusion helps is" if self.word in ("undecided", "untested") else "fusion"
        how = "chosen on validation in each fold" if self.single.nested else "chosen on validation"
        return f"{start} {self.word}: {describe(self.verdict, scale)}; both {how}"


def does_fusion_help(
    single: Mapping[str, Table],
    fused: Mapping[str, Table],
    validation: Mapping[str, Array],
    margin: float | None = None,
    level: float = 0.05,
    *,
    higher_is_better: bool = True,
    unit: str = "person",
    assemble: Assemble | None = None,
) -> Fusion:
    """The best fused row against the best single row (a forest on one modality included), a family of its own.

    Args:
        single, fused: name -> table; validation: name -> (R, F) for all of them (`choose`).

    Raises:
        UsageError: as `choose`.
    """
    one = choose(single, validation, higher_is_better, assemble)
    many = choose(fused, validation, higher_is_better, assemble)
    a, b = many.name, one.name if one.name != many.name else f"{one.name} alone"
    found = family(
        {a: many.table, b: one.table}, b, "does fusion help", margin, level,
        higher_is_better=higher_is_better, unit=unit,
    )  # fmt: skip
    return Fusion(one, many, found[a])
