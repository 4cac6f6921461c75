"""From a setup to records: build, train, select on validation, damage, evaluate, save."""

from fusionbench.harness.evaluate import CHANCE, CLEAN
from fusionbench.harness.execute import Plan, estimate, execute, pick, plan
from fusionbench.harness.reproduce import is_reproduced, reproduce, submit
from fusionbench.harness.setup import Setup, member_of, setup, splits_of

__all__ = [
    "CHANCE",
    "CLEAN",
    "Plan",
    "Setup",
    "estimate",
    "execute",
    "is_reproduced",
    "member_of",
    "pick",
    "plan",
    "reproduce",
    "setup",
    "splits_of",
    "submit",
]  # fmt: skip
