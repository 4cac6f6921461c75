"""All that a plugin may import: data types, base classes, layers, keyed randomness."""

from fusionbench.api import keyed
from fusionbench.api.estimator import FLOOR, Estimator, log_probabilities, prior
from fusionbench.api.layers import (
    GRU,
    Dropout,
    Encoder,
    Feedforward,
    Head,
    MultiHead,
    Projections,
    align,
    attention,
    keep_some,
    masked_mean,
    resample,
    reverse_gradient,
    sinusoids,
    softmax_over,
)
from fusionbench.api.plugins import Backbone, Benchmark, Context, Corruption, Criterion, Fuser, elapsed, group_folds
from fusionbench.api.summaries import summaries, summary_names, unrolled
from fusionbench.api.types import Batch, Source, Spec, Splits, Stream, Streams, Task
from fusionbench.errors import UsageError
from fusionbench.hparams import Choice, Location, Range
from fusionbench.paths import data_dir

#: What a number means: bumped whenever the engine, a metric or a corruption changes it. Records of other protocols
#: are named and never averaged with these; a run that is done again replaces its own. Since 2: a network that has
#: nothing to look at answers what the training labels alone say, chance is the better of two answers without input, and
#: the recipe is the one that was searched on validation.
PROTOCOL = 2

__all__ = [
    "FLOOR",
    "GRU",
    "PROTOCOL",
    "Backbone",
    "Batch",
    "Benchmark",
    "Choice",
    "Context",
    "Corruption",
    "Criterion",
    "Dropout",
    "Encoder",
    "Estimator",
    "Feedforward",
    "Fuser",
    "Head",
    "Location",
    "MultiHead",
    "Projections",
    "Range",
    "Source",
    "Spec",
    "Splits",
    "Stream",
    "Streams",
    "Task",
    "UsageError",
    "align",
    "attention",
    "data_dir",
    "elapsed",
    "group_folds",
    "keep_some",
    "keyed",
    "log_probabilities",
    "masked_mean",
    "prior",
    "resample",
    "reverse_gradient",
    "sinusoids",
    "softmax_over",
    "summaries",
    "summary_names",
    "unrolled",
]
