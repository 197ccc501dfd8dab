"""`agent-sandbox ls`: the sandboxes that there are."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import click

from agent_sandbox.cli.sandboxes.failures import note
from agent_sandbox.cli.sandboxes.reaching import Reach, reaching
from agent_sandbox.cli.sandboxes.running import Interruptions, run_verb
from agent_sandbox.cli.sandboxes.tables import aligned, output_option, structured, table
from agent_sandbox.cli.sandboxes.values import SANDBOX

if TYPE_CHECKING:
    from agent_sandbox.sdk import AsyncSandboxes, SandboxInfo


@click.command()
@click.argument("names", nargs=-1, type=SANDBOX)
@click.option("-l", "--selector", default="", help="Only what this label selector matches: team=a, 'team in (a,b)'.")
@click.option("-A", "--all-namespaces", is_flag=True, help="Those of all namespaces.")
@click.option("-w", "--watch", is_flag=True, help="Go on with every change, until Ctrl-C.")
@click.option("--show-labels", is_flag=True, help="Show their labels too.")
@output_option("wide", "json", "yaml", "name")
@reaching
def ls(
    names: tuple[str, ...],
    selector: str,
    all_namespaces: bool,
    watch: bool,
    show_labels: bool,
    output: str,
    reach: Reach,
) -> None:
    """List sandboxes.

    \b
    agent-sandbox ls -l team=a
    agent-sandbox ls box -o json
    agent-sandbox ls -A -w
    """
    if names and (selector or all_namespaces or watch):
        raise click.UsageError("names go with none of -l, -A and -w: leave one out")
    view = _View(output, namespaced=all_namespaces, labels=show_labels)

    async def work(_: Interruptions) -> None:
        async with reach.open(inside=False) as sandboxes:
            if watch:
                await _watch(sandboxes, view, selector, all_namespaces=all_namespaces)
            elif names:
                view.show([await sandboxes.get(name) for name in names], single=len(names) == 1)
            else:
                found = sandboxes.list(label_selector=selector, all_namespaces=all_namespaces)
                infos = [info async for info in found]
                view.show(infos)
                if not infos and output in {"table", "wide"}:
                    where = "in any namespace" if all_namespaces else f"in namespace {reach.namespace}"
                    note(f"No sandboxes {where}. Make one: agent-sandbox create --template NAME")

    run_verb(work, endless=watch)


async def _watch(sandboxes: AsyncSandboxes, view: _View, selector: str, *, all_namespaces: bool) -> None:
    view.begin()
    async with aclosing(sandboxes.watch(label_selector=selector, all_namespaces=all_namespaces)) as changes:
        async for change in changes:
            view.add(change.kind, change.info)


class _View:
    """Shows sandboxes in the form that was asked for."""

    def __init__(self, output: str, *, namespaced: bool, labels: bool) -> None:
        self._output = output
        self._columns: dict[str, Any] = {"namespaced": namespaced, "wide": output == "wide", "labels": labels}

    def show(self, infos: list[SandboxInfo], *, single: bool = False) -> None:
        """All at once."""
        from agent_sandbox.cli.sandboxes.listing import data_of, header_of, name_of, row_of

        match self._output:
            case "json" | "yaml" if single:
                click.echo(structured(data_of(infos[0]), self._output))
            case "json" | "yaml":
                click.echo(structured({"items": [data_of(info) for info in infos]}, self._output))
            case "name":
                for info in infos:
                    click.echo(name_of(info))
            case _ if infos:
                click.echo(table(header_of(**self._columns), [row_of(info, **self._columns) for info in infos]))

    def begin(self) -> None:
        """The header of a list that is still to come."""
        from agent_sandbox.cli.sandboxes.listing import header_of

        if self._output in {"table", "wide"}:
            click.echo(aligned([*header_of(**self._columns), "CHANGE"], self._widths()))

    def add(self, kind: str, info: SandboxInfo) -> None:
        """One change; one line of JSON each."""
        from agent_sandbox.cli.sandboxes.listing import data_of, name_of, row_of

        match self._output:
            case "json":
                click.echo(json.dumps({"change": kind, **data_of(info)}, ensure_ascii=False))
            case "yaml":
                click.echo("---\n" + structured({"change": kind, **data_of(info)}, "yaml"))
            case "name":
                click.echo(name_of(info))
            case _:
                click.echo(aligned([*row_of(info, **self._columns), kind], self._widths()))

    def _widths(self) -> list[int]:
        from agent_sandbox.cli.sandboxes.listing import WIDTHS

        before = [15] if self._columns["namespaced"] else []
        after = [18, 15] if self._columns["wide"] else []
        return [*before, *WIDTHS, *after, *([20] if self._columns["labels"] else []), 0]
