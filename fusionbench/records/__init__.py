"""Runs and their records: values, files, the rows that they form, and what is published of them. No torch."""

from fusionbench.records.types import Predictions, Record, Run, digest, merge, plain, serialised

__all__ = ["Predictions", "Record", "Run", "digest", "merge", "plain", "serialised"]
