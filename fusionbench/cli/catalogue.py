"""`fusionbench list` and `info`: what plugins there are and what they compute."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import click

from fusionbench import registry, text
from fusionbench.cli.flags import completed
from fusionbench.errors import UsageError, unknown


@click.command("list")
@click.argument("kind", type=click.Choice([*registry.KINDS]), required=False)
@click.option("--benchmark", "-b", metavar="NAME", help="With corruptions: those that the benchmark's table uses.")
@click.option("--verify", is_flag=True, help="Import everything and report what does not import.")
def list_command(kind: str | None, benchmark: str | None, verify: bool) -> int:
    """Names and one-line summaries of plugins; nothing is imported without --verify or --benchmark."""
    if benchmark and kind != "corruptions":
        raise UsageError("--benchmark goes with corruptions: fusionbench list corruptions --benchmark watch")
    spelled = registry.load("benchmarks", benchmark)().corruptions if benchmark else ()
    broken = 0
    for each in [kind] if kind else registry.KINDS:
        click.echo(f"{each}:")
        chosen = registry.names(each)
        if benchmark:
            chosen = {name: origin for name, origin in chosen.items() if name in {s.split(":")[0] for s in spelled}}
            click.echo(f"  the table of {benchmark} uses: {' '.join(spelled)}")
        width = max((len(name) for name in chosen), default=0)
        for name, origin in chosen.items():
            line = origin.summary() or str(origin)
            if verify:
                try:
                    registry.load(each, name)
                    line = f"ok      {line}"
                except UsageError as error:
                    broken, line = broken + 1, f"BROKEN  {error}"
            line = f"  {name:{width}}  {line}"
            # On a terminal a plugin is a line; whoever searches a pipe gets all of it.
            click.echo(text.elided(line, text.terminal_width()) if sys.stdout.isatty() and not verify else line)
    return 1 if broken else 0


@click.command("info")
@click.argument("name", shell_complete=completed(*registry.KINDS))
@click.option(
    "--benchmark", "-b", default="watch", show_default=True, help="Where parameters are counted.",
    shell_complete=completed("benchmarks"),
)  # fmt: skip
@click.option("--card", is_flag=True, help="Of a benchmark: its page, in Markdown.")
@click.option("--croissant", is_flag=True, help="The same as Croissant JSON-LD.")
def info_command(name: str, benchmark: str, card: bool, croissant: bool) -> int:
    """What a plugin computes, its hyper-parameters and their search ranges."""
    kind, plugin = find(name)
    if card or croissant:
        from fusionbench import cards

        if kind != "benchmarks":
            raise UsageError(f"{name} is a {registry.KINDS[kind][0]}: benchmarks have cards")
        click.echo((cards.card if card else cards.croissant)(name.removeprefix("benchmark:")), nl=False)
        return 0
    from fusionbench import hparams

    width = text.terminal_width()
    title = f"{registry.plugin_name(name)} ({registry.KINDS[kind][0]})"
    click.echo(f"{title}\n{'=' * len(title)}\n")
    own = inspect.cleandoc(plugin.__doc__ or "") if kind == "corruptions" else ""
    described = own or inspect.cleandoc(sys.modules[plugin.__module__].__doc__ or "no description")
    click.echo(f"{text.refilled(described, width)}\n")
    declared = hparams.read(plugin)
    if declared:
        click.echo("Hyper-parameters")
        for h in declared.values():
            line = f"  {h.name} = {h.default!r}  [{h.domain or 'not searched'}]  {h.help}"
            click.echo(text.wrap(line, width, "      "))
    for line in _facts(kind, plugin, name.removeprefix("fuser:"), benchmark):
        click.echo(text.wrap(line, width, "  "))
    return 0


def find(name: str) -> tuple[str, Any]:
    """The kind and the class of a plugin, by name or path.

    Raises:
        UsageError: no kind has it, or several do (then write `fuser:concat`).
    """
    prefix, _, rest = name.partition(":")
    singular = {word: kind for kind, (word, _) in registry.KINDS.items()}
    if rest and prefix in singular:
        return singular[prefix], registry.load(singular[prefix], rest)
    if registry.is_path(name):
        problems = []
        for kind in registry.KINDS:
            try:
                return kind, registry.load(kind, name)
            except UsageError as error:
                problems.append(error)
        raise problems[0]
    kinds = [kind for kind in registry.KINDS if name in registry.names(kind)]
    if not kinds:
        raise unknown("plugin", name, [n for kind in registry.KINDS for n in registry.names(kind)])
    if len(kinds) > 1:
        spelled = " or ".join(f"{registry.KINDS[kind][0]}:{name}" for kind in kinds)
        raise UsageError(f"{name!r} is several things: write {spelled}")
    return kinds[0], registry.load(kinds[0], name)


def _facts(kind: str, plugin: Any, name: str, benchmark: str) -> list[str]:
    lines = [""]
    if kind == "fusers":
        from fusionbench import check, harness
        from fusionbench.api import Estimator

        if issubclass(plugin, Estimator):
            tried = "; ".join(f"{n} {', '.join(f'{v:g}' for v in values)}" for n, values in plugin.grid.items())
            lines.append(f"Fitted in one call; validation chooses from: {tried or 'nothing'}")
        else:
            model = harness.setup(benchmark, name).blueprint.build(0, {}, 1000)
            own = sum(p.numel() for p in model.fuser.parameters())
            lines.append(f"Parameters on {benchmark}: {own:,} in the fuser, {_count(model):,} with its backbones")
            (stacked,) = check.report("fusers", plugin, ["stackable"]).results
            how = "stacked, many in one program" if stacked.status == "passed" else f"in turn: {stacked.message}"
            lines.append(f"Members are trained {how}")
        for preset, settings in plugin.presets.items():
            lines.append(f"Preset {preset}: {' '.join(f'{k}={v}' for k, v in settings.items())}")
    if kind == "benchmarks":
        from fusionbench import contract

        protocol = contract.make(plugin, {}, name)
        lines.append(f"Modalities: {', '.join(f'{m} {shape}' for m, shape in protocol.shapes.items())}")
        task = protocol.task
        asked = f"{task.out} {'classes' if task.kind == 'classify' else text.plural('value')}"
        also = f" (also {', '.join(task.metrics[1:])})" if task.metrics[1:] else ""
        lines.append(
            f"Task: {asked} {'every frame' if task.per_frame else 'a sample'}, ranked by {task.metrics[0]}{also}; "
            f"{text.counted(protocol.folds, 'fold')}, {text.counted(protocol.seeds, 'seed')}, {protocol.steps} steps"
        )
        lines.append(f"Damage: {' '.join(protocol.corruptions)}")
        about = {"Licence": protocol.licence, "Source": protocol.source, "Please cite": protocol.citation}
        lines += [f"{what}: {said}" for what, said in about.items() if said]
        if known := registry.ceilings(registry.plugin_name(name)):
            shown = ", ".join(f"{what} {score:.3f}" for what, score in known.items())
            lines.append(f"Best reachable {protocol.task.metrics[0]} at the default settings with: {shown}")
    if kind == "corruptions":
        lines.append(f"{'Announced by the mask' if plugin.announced else 'Silent'}; made for: {plugin.level}")
        lines.append(f"Severities 1 to {len(plugin.ladder)}: {', '.join(map(str, plugin.ladder))}")
    for check, reason in plugin.known_failures.items():
        lines.append(f"Known failure of {check}: {reason}")
    lines.append(f"Source: {inspect.getfile(plugin)}")
    return lines


def _count(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())
