"""`agent-sandbox doctor`: what is wrong between here and a sandbox, and what to type next."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import click

from agent_sandbox.cli.sandboxes.failures import FAILED
from agent_sandbox.cli.sandboxes.reaching import Reach, reaching
from agent_sandbox.cli.sandboxes.running import Interruptions, run_verb
from agent_sandbox.cli.sandboxes.tables import output_option, structured

if TYPE_CHECKING:
    from agent_sandbox.sdk import Finding

_COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@output_option("json", "yaml", default="text")
@reaching
def doctor(output: str, reach: Reach) -> None:
    """Check all that a sandbox needs, from the kubeconfig to the templates, and say what to type next.

    The exit status is 1 if something fails; warnings alone are none. Nothing is changed.

    \b
    agent-sandbox doctor
    agent-sandbox doctor --context production -n agents -o json
    """

    async def work(_: Interruptions) -> list[Finding]:
        from agent_sandbox.sdk import diagnose

        found: list[Finding] = []
        async with aclosing(diagnose(reach.options())) as findings:
            async for finding in findings:
                found.append(finding)
                if output == "text":
                    _tell(finding)
        return found

    findings = run_verb(work)
    if output != "text":
        checks = [
            {"check": one.check, "verdict": one.verdict, "message": one.message, "next": one.next_step}
            for one in findings
        ]
        click.echo(structured({"ok": not _failed(findings), "checks": checks}, output))
    if _failed(findings):
        raise SystemExit(FAILED)


def _failed(findings: list[Finding]) -> bool:
    return any(finding.verdict == "fail" for finding in findings)


def _tell(finding: Finding) -> None:
    verdict = click.style(f"{finding.verdict:<4}", fg=_COLOURS[finding.verdict])
    click.echo(f"{verdict}  {finding.check:<12} {' '.join(finding.message.split())}")
    if finding.next_step:
        click.echo(f"      {'':<12} → {finding.next_step}")
