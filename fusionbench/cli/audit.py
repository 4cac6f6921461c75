"""`fusionbench audit`: what in the data makes scores that no new person would see."""

from __future__ import annotations

import click


@click.command("audit", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("target", metavar="DATA")
@click.option("--format", "fmt", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--accept", metavar="A,B,...", default="", help="Questions whose suspicion is known and does not count.")
@click.pass_context
def audit_command(ctx: click.Context, target: str, fmt: str, accept: str) -> int:
    """Leaks: shuffled folds, groups, time, copies, codes, missingness, ids, scaling, fitted features.

    DATA is an .npz file, a folder with benchmark.toml, a .py plugin, or a benchmark's name: --benchmark.root DIR then
    says where its data are. Exit status 0: nothing suspicious; 1: something is; 2: it cannot be audited.
    """
    from fusionbench import audit, text
    from fusionbench.cli.flags import dotted

    accepted = [name.strip() for name in accept.split(",") if name.strip()]
    found = audit.audit(target, dotted(ctx).hparams.get("benchmark"), accepted)
    click.echo(audit.render(found, fmt, text.terminal_width(), text.is_styled()))
    return 1 if found.suspicious else 0
