"""Numbers that may not change unseen: every fuser's answers, every corruption, every metric, one short training.

`python tests/test_golden.py` writes `golden.json` again and names what has changed.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fusionbench import engine, registry
from fusionbench.api import PROTOCOL, Fuser, Spec, Stream, Streams, UsageError
from fusionbench.check import corruptions as kit
from fusionbench.engine import Member, Recipe, Trained
from fusionbench.engine.model import Blueprint
from fusionbench.hparams import read
from fusionbench.metrics import METRICS

FILE = Path(__file__).with_name("golden.json")
DIMS = {"audio": 5, "video": 4}
#: Estimators are left out: their numbers are a library's, and change with its versions.
NETWORKS = [name for name in registry.names("fusers") if issubclass(registry.load("fusers", name), Fuser)]
KEYS = [
    *(f"fuser {name} {clock}" for name in NETWORKS for clock in ("clip", "per frame")),
    *(f"corruption {name}" for name in registry.names("corruptions")),
    *(f"metric {name}" for name in METRICS),
    "training alone",
    "training stacked",
]


def wild(phase: float, *shape: int) -> Tensor:
    """Numbers in (-2, 2) that look random and come from no generator that could change."""
    places = torch.arange(int(np.prod(shape)), dtype=torch.float64)
    return (2 * torch.sin(12.9898 * places**1.5 + phase)).reshape(shape)


def streams(per_frame: bool) -> Streams:
    """Three samples: whole, padded and with a gap, without video."""
    lengths = {"audio": 4, "video": 4 if per_frame else 6}
    made = {}
    for phase, (m, steps) in enumerate(lengths.items()):
        mask = torch.ones(3, steps, dtype=torch.bool)
        mask[1, 1] = mask[1, -1] = False
        mask[2] = m == "audio"
        made[m] = Stream(wild(phase, 3, steps, DIMS[m]).float(), mask)
    return made


def build(name: str, per_frame: bool) -> Fuser:
    plugin = registry.load("fusers", name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            return plugin(Spec("classify", DIMS, 3, per_frame, 64)).eval()
        except UsageError:  # a method of regression only
            return plugin(Spec("regress", DIMS, 3, per_frame, 64)).eval()


def fuser(name: str, clock: str) -> Tensor:
    """The answers, at default hyper-parameters and seed 0, where there is something real to answer from."""
    given = streams(clock == "per frame")
    with torch.no_grad():
        answers = build(name, clock == "per frame")(given)
    real = torch.stack([s.mask for s in given.values()]).any(0) if clock == "per frame" else slice(None)
    return answers[real]


def corruption(name: str) -> Tensor:
    """Mean, a projection and the share of real steps of each modality, at the highest severity."""
    plugin = registry.load("corruptions", name)
    clean, context = kit.material(plugin)
    damaged = plugin("all").apply(dict(clean), len(plugin.ladder), kit.make_keys(plugin, clean), context)
    found = []
    for s in damaged.values():
        x = s.x.double()
        found += [x.mean(), (x * wild(0.5, *x.shape)).mean(), s.mask.double().mean()]
    return torch.stack(found)


def metric(name: str) -> Tensor:
    found = METRICS[name]
    pred = wild(1.0, 200, 3).numpy()
    y = 0.4 * pred + 0.4 * wild(2.0, 200, 3).numpy() + 0.1
    return torch.tensor([found.of(pred, y.argmax(1).astype(float) if found.kind == "classify" else y)])


def training(how: str) -> Tensor:
    """Loss and validation score of two members over two validations."""
    judge = registry.load("benchmarks", "toy_xor")(people=6)
    method, identity = registry.load("fusers", "concat"), registry.load("backbones", "identity")
    settings = {n: h.default for n, h in read(method).items()}
    plan = Blueprint(judge.task, judge.shapes, method, settings, {m: (identity, {}) for m in judge.shapes})
    members = [Member(0, seed, np.arange(0, 80), np.arange(80, 120), 1e-3, label_smoothing=0.1) for seed in range(2)]
    recipe = Recipe(steps=10, batch=16, interval=5, warmup=0.3, modality_dropout=0.2)
    events = engine.train(plan, members, judge.load(), recipe, stacked=1 if how == "alone" else 2)
    finished = sorted((e for e in events if isinstance(e, Trained)), key=lambda e: e.member)
    return torch.tensor([[h["loss"], h["score"]] for e in finished for h in e.history])


@cache
def compute(key: str) -> tuple[float, ...]:
    kind, name, clock = [*key.split(" ", 2), ""][:3]
    values = {
        "fuser": lambda: fuser(name, clock),
        "corruption": lambda: corruption(name),
        "metric": lambda: metric(name),
        "training": lambda: training(name),
    }[kind]()
    return tuple(float(f"{v:.7g}") for v in values.double().flatten().tolist())


def stored() -> dict[str, list[float]]:
    return json.loads(FILE.read_text())["numbers"]


ADVICE = (
    "\nIf something that all plugins share (a layer of the api, the engine, a metric, a corruption) changed what a "
    "number means, bump PROTOCOL in fusionbench/api first; if it is this plugin alone, its fingerprint tells. "
    "Then write the numbers again: python tests/test_golden.py"
)


@pytest.mark.parametrize("key", KEYS)
def test_the_numbers_are_what_they_were(key: str) -> None:
    before = stored()
    assert key in before, f"{key} has no golden numbers yet: python tests/test_golden.py"
    now = compute(key)
    assert np.isfinite(now).all()
    assert len(now) == len(before[key]), f"{key}: {len(before[key])} numbers became {len(now)}.{ADVICE}"
    # A few steps of training amplify rounding.
    tolerance = 1e-3 if key.startswith("training") else 1e-4
    distance = np.abs(np.array(now) - before[key])
    worst = int(distance.argmax())
    assert distance[worst] <= tolerance * (1 + abs(before[key][worst])), (
        f"{key}: number {worst} was {before[key][worst]:g} and is {now[worst]:g}.{ADVICE}"
    )


def test_the_file_holds_this_protocol_and_no_more_than_there_is() -> None:
    content = json.loads(FILE.read_text())
    assert content["protocol"] == PROTOCOL, "PROTOCOL was bumped: python tests/test_golden.py"
    assert set(content["numbers"]) <= set(KEYS), "something is gone: python tests/test_golden.py"


def test_the_numbers_would_notice() -> None:
    """Other weights, other answers: no fuser's numbers are another's, and none are zeros."""
    answers = {key: numbers for key, numbers in stored().items() if key.startswith("fuser")}
    assert len({tuple(numbers) for numbers in answers.values()}) == len(answers)
    assert all(np.std(numbers) > 1e-3 for numbers in answers.values())


def main() -> None:
    before = stored() if FILE.is_file() else {}
    numbers = {key: compute(key) for key in KEYS}
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(values)}" for key, values in numbers.items())
    FILE.write_text(f'{{"protocol": {PROTOCOL}, "numbers": {{\n{lines}\n}}}}\n')
    changed = [key for key in KEYS if key not in before or not np.allclose(before[key], numbers[key], atol=1e-4)]
    print(f"{len(KEYS)} entries; new or changed: {', '.join(changed) or 'none'}")


if __name__ == "__main__":
    main()
