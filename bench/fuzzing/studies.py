"""Study files with one line that is wrong."""

from __future__ import annotations

from pathlib import Path
from random import Random

RIGHT = {
    "fusers": '["concat"]',
    "benchmarks": '["toy_xor"]',
    "seeds": "1",
    "folds": "[0]",
    "references": "false",
    "train": "{steps = 2, interval = 1, lr = 1e-3}",
}
OTHERS = [
    *["corruption", "lattice", "options", "benchmark", "backbones", "backbone", "cross", "quick", "tuned", "nothing"],
    *["train.lr", "options.concat", "backbone.left"],
]
VALUES = [
    *["3", "-1", "99", "1e9", "nan", "inf", "true", '"x"', "1979-05-27", "[]", "[[]]", '[""]', "[1, 'x']", "[0, 0]"],
    *["{}", "{x = [1]}", '{"a.b" = 3}', '{"train.clip" = ["x"]}', '{concat = {width = "x"}}', '["noise:nothing"]'],
    *['{left = "gru"}', "{left = {dim = 0}}", '{"backbone.left" = [1]}'],
]


def studies(rng: Random, folder: Path) -> list[str]:
    """A study file with one line that is wrong, or that breaks off."""
    lines = RIGHT | {rng.choice([*RIGHT, *OTHERS]): rng.choice(VALUES)}
    text = "\n".join(f"{name} = {value}" for name, value in lines.items())
    (folder / "study.toml").write_text(text if rng.random() < 0.9 else text[: rng.randrange(99)])
    return ["compare", "--study", "study.toml", "--no-track", "--jobs", "1"]
