"""What people type: names of sandboxes, durations, pairs; read, checked, and completed by the shell."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

from agent_sandbox.cli.sandboxes.reaching import Reach

if TYPE_CHECKING:
    from agent_sandbox.sdk import AsyncSandboxes

COMPLETION_SECONDS: Final = 2.0
"""A shell that waits any longer for names is worse than one that knows none."""

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_DURATION: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")
_UNITS: Final = (86400.0, 3600.0, 60.0, 1.0)
_LONGEST: Final = 36525 * 86400.0


class KubeName(click.ParamType):  # type: ignore[type-arg] # generic in new versions of click only
    """A name, or ``kind/name`` as ``-o name`` prints it; the shell completes it from the cluster."""

    name = "name"

    def __init__(self, find: Callable[[AsyncSandboxes], Awaitable[Iterable[str]]]) -> None:
        """
        Args:
            find: the names that exist.
        """
        self._find = find

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The bare name; one that Kubernetes would not allow is refused."""
        name = str(value).rpartition("/")[2]
        if not _NAME.fullmatch(name):
            self.fail(f"{value!r} is no name of Kubernetes (a-z, 0-9, '-' and '.'). See: agent-sandbox ls", param, ctx)
        return name

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names that begin like this and are not typed yet; none if the cluster does not answer at once."""
        typed = ctx.params.get(param.name or "") or ()
        return [
            CompletionItem(name)
            for name in self._names(ctx)
            if name.startswith(incomplete) and (isinstance(typed, str) or name not in typed)
        ]

    def _names(self, ctx: click.Context) -> Iterable[str]:
        import anyio

        from agent_sandbox.kube import KubeError
        from agent_sandbox.sdk import SandboxError

        given = {key: ctx.params[key] for key in ("namespace", "kubeconfig", "context") if ctx.params.get(key)}

        async def ask() -> Iterable[str]:
            with anyio.move_on_after(COMPLETION_SECONDS):
                async with Reach(**given).open(inside=False) as sandboxes:
                    return sorted(await self._find(sandboxes))
            return ()

        try:
            return anyio.run(ask)
        except (SandboxError, KubeError, OSError):
            return ()


async def _sandbox_names(sandboxes: AsyncSandboxes) -> Iterable[str]:
    return [info.claim_name async for info in sandboxes.list()]


async def _template_names(sandboxes: AsyncSandboxes) -> Iterable[str]:
    return [template.name for template in await sandboxes.templates()]


async def _pool_names(sandboxes: AsyncSandboxes) -> Iterable[str]:
    return [pool.name for pool in await sandboxes.pools()]


SANDBOX: Final = KubeName(_sandbox_names)
TEMPLATE: Final = KubeName(_template_names)
POOL: Final = KubeName(_pool_names)


class Duration(click.ParamType):  # type: ignore[type-arg] # generic in new versions of click only
    """Seconds, or a duration as Kubernetes writes it: 90, 90s, 5m, 1h30m, 2d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        if isinstance(value, int | float):
            return float(value)
        text = value + "s" if re.fullmatch(r"\d+(\.\d+)?", value) else value
        found = _DURATION.fullmatch(text)
        if not text or found is None or not any(found.groups()):
            self.fail(f"{value!r} is no duration: write 90s, 5m, 1h30m or 2d", param, ctx)
        seconds = sum(float(part) * unit for part, unit in zip(found.groups(), _UNITS, strict=True) if part)
        if not seconds:
            self.fail("a duration of nothing makes no sense here: write 90s, 5m, 1h30m or 2d", param, ctx)
        if seconds > _LONGEST:
            self.fail(f"{value!r} is more than a hundred years: leave it out for no end", param, ctx)
        return seconds


class Pair(click.ParamType):  # type: ignore[type-arg] # generic in new versions of click only
    """``KEY=VALUE``."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Key and value."""
        if isinstance(value, tuple):
            return value
        key, equals, content = value.partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is no pair: write it KEY=VALUE", param, ctx)
        return key, content


DURATION: Final = Duration()
PAIR: Final = Pair()

__all__ = ["DURATION", "PAIR", "POOL", "SANDBOX", "TEMPLATE"]
