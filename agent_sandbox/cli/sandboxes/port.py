"""`agent-sandbox port`: ports of a sandbox on this machine, until Ctrl-C."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import anyio
import click

from agent_sandbox.cli.sandboxes.failures import Failure, note
from agent_sandbox.cli.sandboxes.reaching import Reach, reaching
from agent_sandbox.cli.sandboxes.running import Interruptions, run_verb
from agent_sandbox.cli.sandboxes.values import SANDBOX

if TYPE_CHECKING:
    from agent_sandbox.sdk import AsyncSandbox

LOOK_SECONDS: Final = 5.0
"""How often it is looked whether the sandbox still exists."""

_PORTS: Final = re.compile(r"(?:(\d{0,5}):)?(\d{1,5})")


@dataclass(frozen=True)
class PortPair:
    """A port here (0: a free one) and the one in the sandbox that it leads to."""

    local: int
    remote: int


class PortPairType(click.ParamType):  # type: ignore[type-arg] # generic in new versions of click only
    """``PORT``, ``LOCAL:PORT`` or ``:PORT`` for a free local one, as kubectl port-forward takes them."""

    name = "[local:]port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> PortPair:
        """Both ports."""
        if isinstance(value, PortPair):
            return value
        found = _PORTS.fullmatch(value)
        if found is None or not 0 < int(found[2]) < 65536 or int(found[1] or 0) > 65535:
            self.fail(f"{value!r} is no port: write 8000, 8080:8000, or :8000 for a free local one", param, ctx)
        remote = int(found[2])
        return PortPair(remote if found[1] is None else int(found[1] or 0), remote)


@click.command()
@click.argument("name", type=SANDBOX)
@click.argument("ports", nargs=-1, required=True, type=PortPairType(), metavar="[LOCAL:]PORT...")
@click.option("--address", default="127.0.0.1", show_default=True, help="Where to listen; others can reach 0.0.0.0.")
@reaching
def port(name: str, ports: tuple[PortPair, ...], address: str, reach: Reach) -> None:
    """Make ports of a sandbox ports of this machine, until Ctrl-C, and print their URLs.

    \b
    agent-sandbox port box 8000
    agent-sandbox port box 8080:80 :5432
    """

    async def work(_: Interruptions) -> None:
        async with reach.connect(name, inside=False) as sandbox, AsyncExitStack() as stack:
            for pair in ports:
                try:
                    local = await stack.enter_async_context(
                        sandbox.ports.forward(pair.remote, pair.local, host=address)
                    )
                except OSError as error:
                    if not isinstance(error, ConnectionError):
                        raise Failure(
                            f"port {pair.local} of {address}: {error.strerror or error}. "
                            f"Take a free one: :{pair.remote}"
                        ) from error
                    raise
                host = f"[{address}]" if ":" in address else address
                click.echo(f"http://{host}:{local}")
                note(f"  leads to port {pair.remote} of {name}; Ctrl-C ends it")
            await _until_it_is_gone(sandbox)

    run_verb(work, endless=True)


async def _until_it_is_gone(sandbox: AsyncSandbox) -> None:
    from agent_sandbox.sdk import SandboxError, SandboxGoneError

    while True:
        await anyio.sleep(LOOK_SECONDS)
        try:
            await sandbox.status()
        except SandboxGoneError:
            raise
        except SandboxError:
            continue  # the API server is away: connections that are open live on
