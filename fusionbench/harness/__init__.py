"""From a setup to records: build, train, select on validation, damage, evaluate, save."""

from fusionbench.harness.dataset import Dataset
from fusionbench.harness.ensemble import check_members, ensembles, refuse_partition
from fusionbench.harness.evaluate import CHANCE, CLEAN, parse
from fusionbench.harness.execute import blank, estimate, execute, pick
from fusionbench.harness.fit import fit, score
from fusionbench.harness.reproduce import is_reproduced, reproduce, setup_of, submit
from fusionbench.harness.setup import Setup, member_of, setup, splits_of, training_of

__all__ = [
    "CHANCE",
    "CLEAN",
    "Dataset",
    "Setup",
    "blank",
    "check_members",
    "ensembles",
    "estimate",
    "execute",
    "fit",
    "is_reproduced",
    "member_of",
    "parse",
    "pick",
    "refuse_partition",
    "reproduce",
    "score",
    "setup",
    "setup_of",
    "splits_of",
    "submit",
    "training_of",
]
