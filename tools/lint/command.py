"""`replay lint PATH or MODULE`: the command around `linting`."""

from __future__ import annotations

import click
from rich.text import Text

from dalsegno.tools.failures import NO, UNCLEAR, say
from dalsegno.tools.lint import linting, report
from dalsegno.tools.lint.rules import RULES
from dalsegno.tools.options import command_help, json_option, show, show_json, show_long

HELP = command_help(
    "Find nondeterminism in workflow code, with line, reason and remedy.",
    "replay lint src/shop",
    "TARGET is a file, a folder, or a module's name; nothing is imported or run. A finding is excused by a comment "
    "with a reason: # dalsegno: ignore[clock] the reason. Exit code 0: nothing found; 1: something found; 2: something "
    'could not be read. With --json: {"files", "workflows", "findings": [{"rule", "file", "line", "column", '
    '"workflow", "what", "why", "instead"}], "excused": [the same with "reason"], "unreadable": [{"file", "why"}]}.',
)


@click.command("lint", help=HELP)
@click.argument("targets", nargs=-1, metavar="TARGET…")
@click.option("--rule", "rules", multiple=True, metavar="RULE", type=click.Choice(list(RULES)), help="Only this rule.")
@click.option("--rules", "explain", is_flag=True, help="List the rules instead.")
@click.option("--sarif", "sarif_wanted", is_flag=True, help="Print SARIF 2.1.0, which code hosts and editors read.")
@json_option
def lint(
    targets: tuple[str, ...], rules: tuple[str, ...], explain: bool, sarif_wanted: bool, json_wanted: bool
) -> None:
    """Find nondeterminism in workflow code."""
    if explain:
        _explain(json_wanted)
        return
    if not targets:
        raise click.UsageError("name a file, a folder or a module")
    if sarif_wanted and json_wanted:
        raise click.UsageError("--sarif or --json, not both")
    linted = linting.lint(targets, rules)
    if sarif_wanted:
        show_json(report.sarif(linted))
    elif json_wanted:
        show_json(report.data(linted))
    else:
        show_long(*report.text_report(linted))
    for each in linted.unreadable:
        say(f"{each.file}: {each.why}")
    click.get_current_context().exit(UNCLEAR if linted.unreadable else NO if linted.found else 0)


def _explain(json_wanted: bool) -> None:
    if json_wanted:
        show_json({rule.id: {"title": rule.title, "why": rule.why, "instead": rule.instead} for rule in RULES.values()})
        return
    for rule in RULES.values():
        lines = Text(rule.id, style="bold")
        lines.append(f": {rule.title}\n    {rule.why}\n    write instead: {rule.instead}", style="default not bold")
        show(lines)
