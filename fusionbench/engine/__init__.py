"""The training engine: K members of one model at once, each with its own fold, seed and scalars.

`loop` trains and is the only optimiser loop; a `program` is what it steps: a member `alone` or several `stacked`, on
CUDA captured as a `graph`. `size` says how many are stacked, `answers` what trained models say.
"""

from fusionbench.engine.alone import Alone
from fusionbench.engine.answers import chunk, predict, predict_stacked
from fusionbench.engine.graph import Graph, capturable
from fusionbench.engine.loop import Event, Progress, Trained, make_program, train
from fusionbench.engine.program import hide
from fusionbench.engine.recipe import Member, Recipe, rates_of
from fusionbench.engine.size import stack_size
from fusionbench.engine.stacked import Stacked

__all__ = [
    "Alone",
    "Event",
    "Graph",
    "Member",
    "Progress",
    "Recipe",
    "Stacked",
    "Trained",
    "capturable",
    "chunk",
    "hide",
    "make_program",
    "predict",
    "predict_stacked",
    "rates_of",
    "stack_size",
    "train",
]
