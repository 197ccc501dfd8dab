"""Which sandboxes a verb means: the options that name a cluster, a namespace and a way there."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from agent_sandbox.cli.namespaces import NAMESPACE
from agent_sandbox.cli.sandboxes.running import saying

if TYPE_CHECKING:
    from agent_sandbox.sdk import AsyncSandbox, AsyncSandboxes, ConnectionOptions

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS: Final = (
    click.option(
        "-n",
        "--namespace",
        type=NAMESPACE,
        default="default",
        show_default=True,
        envvar="AGENT_SANDBOX_NAMESPACE",
        help="Namespace of the sandboxes.",
    ),
    click.option(
        "--kubeconfig",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Kubeconfig of the cluster. Default: $KUBECONFIG, else a running local stack, else ~/.kube/config.",
    ),
    click.option("--context", help="Context of the kubeconfig. Default: its current one."),
    click.option(
        "--api-url",
        envvar="AGENT_SANDBOX_API_URL",
        help="Go to the router at this URL. Default: found in the cluster.",
    ),
    click.option(
        "--router-namespace",
        type=NAMESPACE,
        default="agent-sandbox-system",
        show_default=True,
        help="Where the router runs in the cluster.",
    ),
)


@dataclass(frozen=True)
class Reach:
    """What the options say."""

    namespace: str = "default"
    kubeconfig: Path | None = None
    context: str | None = None
    api_url: str | None = None
    router_namespace: str = "agent-sandbox-system"

    def options(self, *, inside: bool = True) -> ConnectionOptions:
        """The same for the SDK.

        Args:
            inside: whether anything is done in sandboxes; if not, no router is looked for.
        """
        from agent_sandbox.sdk import ConnectionOptions

        return ConnectionOptions(
            mode="auto" if inside else "pod",
            namespace=self.namespace,
            kubeconfig=self.kubeconfig,
            context=self.context,
            api_url=self.api_url if inside else None,
            router_namespace=self.router_namespace,
        )

    @asynccontextmanager
    async def open(self, *, inside: bool = True) -> AsyncIterator[AsyncSandboxes]:
        """The sandboxes of the namespace.

        Raises:
            SandboxError: there is no cluster, or no way to its sandboxes.
        """
        from agent_sandbox.sdk import AsyncSandboxes

        async with AsyncExitStack() as stack:
            async with saying("connecting"):
                opening = AsyncSandboxes(self.namespace, self.options(inside=inside))
                sandboxes = await stack.enter_async_context(opening)
            yield sandboxes

    @asynccontextmanager
    async def connect(self, name: str, *, inside: bool = True) -> AsyncIterator[AsyncSandbox]:
        """One sandbox, waited for if it is not ready.

        Raises:
            SandboxError: there is no such sandbox, no way to it, or it will not be ready.
        """
        async with self.open(inside=inside) as sandboxes:
            async with saying(f"waiting until {name} is ready"):
                sandbox = await sandboxes.connect(name)
            yield sandbox


def reaching(function: F) -> F:
    """Add the options to a verb, which gets them as one ``reach``."""

    @functools.wraps(function)
    def verb(
        *arguments: Any,
        namespace: str,
        kubeconfig: Path | None,
        context: str | None,
        api_url: str | None,
        router_namespace: str,
        **others: Any,
    ) -> Any:
        reach = Reach(namespace, kubeconfig, context, api_url, router_namespace)
        return function(*arguments, reach=reach, **others)

    decorated: Any = verb
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return] # click's decorators keep what they are given
