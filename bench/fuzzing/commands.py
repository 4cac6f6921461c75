"""Every command with odd words in place of, or beside, right ones: options are read from the command line itself."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from fuzzing import odd

TUNE = ["concat", "-b", "toy_xor", "--trials", "1", "--inner", "2", "--seeds", "1", "--folds", "0,", "--no-track"]
SHORT = ["--train.steps", "2", "--train.interval", "1"]
#: command -> right words, so that an odd one beside them is met; a command that is not here gets odd words alone.
RIGHT = {
    "run": ["--fuser", "concat", *odd.TOY],
    "compare": ["concat", *odd.TOY, "--no-references"],
    "missing-grid": ["concat", *odd.TOY, "--rates", "0"],
    "tune": [*TUNE, *SHORT],
    "records publish": ["toy_xor"],
    "records submit": ["toy_xor"],
    "new": ["fuser", "mine"],
    # The smallest race that there is: of all candidates one would take longer than an input may.
    "advise": ["toy_xor", "--fusers", "linear", "--jobs", "1", "--benchmark.people", "6", *SHORT],
    "fit": ["concat", "toy_xor", "--folds", "0,", "--jobs", "1", "--no-track", "--train.lr", "1e-3", *SHORT],
    "predict": ["toy_xor/gated", "--input", "toy_xor"],
    "audit": ["toy_xor"],
    "power": ["low_rank", "--against", "gated", "-b", "toy_xor"],
}
#: Options that come from signatures, of the commands that take them.
DOTTED = {
    "run": ["--fuser.width", "--fuser.nothing", "--backbone.left", "--backbone.left.dim", "--benchmark.samples"],
    "compare": ["--concat.width", "--nothing.width", "--backbone.left", "--backbone.left.dim", "--benchmark.people"],
    "tune": ["--benchmark.people"],
    "advise": ["--benchmark.samples", "--fuser.width"],
    "fit": ["--fuser.width", "--backbone.left", "--benchmark.people"],
    "audit": ["--benchmark.people", "--benchmark.nothing"],
}
TRAIN = ["lr", "clip", "batch", "missing", "steps", "interval", "modality_dropout", "precision", "nothing"]
FEW = 0.2  # how often there is one word more, in an odd place


def commands(rng: Random, folder: Path) -> list[str]:
    """A command with odd words in place of, or beside, right ones."""
    if rng.random() < 0.03:
        return [rng.choice(["", "--"]) + rng.choice(odd.WORDS)]
    command, options = rng.choice(_commands())
    words = [*command.split(), *RIGHT.get(command, [])]
    if command not in RIGHT:
        words += [rng.choice(odd.WORDS) for _ in range(rng.choice([0, 1, 1, 1, 2]))]
    dotted = [f"--train.{name}" for name in TRAIN] if command in DOTTED else []
    for _ in range(rng.choice([0, 1, 1, 2])):
        option, flag = rng.choice([*options, *((name, False) for name in [*DOTTED.get(command, []), *dotted])])
        words += [option] if flag and rng.random() < 0.9 else [option, rng.choice(odd.WORDS)]
    if rng.random() < FEW:
        words.insert(rng.randrange(1, len(words) + 1), rng.choice(odd.WORDS))
    return words


@cache
def _commands() -> list[tuple[str, list[tuple[str, bool]]]]:
    """(`records publish`, its options: (`--results`, is it a flag?))."""
    import click

    from fusionbench.cli import cli

    def leaves(group: Any, above: str) -> Iterator[tuple[str, list[tuple[str, bool]]]]:
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if isinstance(command, click.Group):
                yield from leaves(command, f"{above}{name} ")
            else:
                given = [p for p in command.params if isinstance(p, click.Option)]
                yield f"{above}{name}", [(max(p.opts, key=len), p.is_flag) for p in given] or [("--help", True)]

    return list(leaves(cli, ""))
