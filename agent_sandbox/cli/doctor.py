"""`agent-sandbox local doctor`: what this machine can isolate, and what would give more."""

import json
import textwrap
from typing import TYPE_CHECKING, Final

import anyio
import click

from agent_sandbox.clock import SystemClock

if TYPE_CHECKING:
    from agent_sandbox.local.node.doctor import Finding

_WIDTH: Final = 110
_INDENT: Final = 22


@click.command()
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="For whom."
)
def doctor(output: str) -> None:
    """Try what this machine allows a stack, and say what would give more.

    It does what `local up` does at its start, as the user who asks, and leaves nothing behind. Exit status 1 if no
    stack would start here.
    """
    from agent_sandbox.local.node.doctor import examine

    findings = anyio.run(examine, SystemClock())
    if output == "json":
        click.echo(json.dumps([finding.to_json() for finding in findings], indent=2))
    else:
        click.echo("\n".join(_lines(finding) for finding in findings))
    if any(finding.name == "isolation" and finding.state == "missing" for finding in findings):
        raise SystemExit(1)


def _lines(finding: "Finding") -> str:
    head = f"{finding.state:8} {finding.name:10}"
    text = textwrap.fill(finding.detail, _WIDTH, initial_indent=f"{head:{_INDENT}}", subsequent_indent=" " * _INDENT)
    if not finding.cure:
        return text
    cure = textwrap.fill(
        finding.cure,
        _WIDTH,
        initial_indent=" " * _INDENT + "-> ",
        subsequent_indent=" " * (_INDENT + 3),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return f"{text}\n{cure}"
