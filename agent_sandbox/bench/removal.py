"""Takes away what a scenario made: kind by kind, page by page, with little work for those who watch."""

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from agent_sandbox.clock import Clock
from agent_sandbox.kube import GoneError, KubeClient, Propagation
from agent_sandbox_api.resource import Resource

PAGE: Final = 500
"""Objects that one request deletes: the server does it one after the other, within its limit of a minute."""
TELL_EVERY: Final = 2.0
"""Seconds between two words of progress."""
_OPTIONS: Final = msgspec.json.encode(
    {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": Propagation.BACKGROUND.value}
)


async def remove_all(
    client: KubeClient,
    kinds: Iterable[Resource[Any]],
    namespace: str,
    *,
    clock: Clock,
    say: Callable[[str], None],
) -> None:
    """Delete every object of these kinds in a namespace that is the caller's own, in that order.

    Whoever owns should come last where no controller runs: the garbage collector has nothing to do for an owner whose
    children are gone, and else asks for every child, by default twenty times a second. Where controllers run owners
    come first, because they would replace what is missing.

    Raises:
        KubeError: the server refuses.
    """
    told = clock.monotonic()
    for kind in kinds:
        removed, token = 0, ""
        while True:
            try:
                page = await _remove_page(client, kind, namespace, token)
            except GoneError:  # the continuation is too old: what is left begins another list
                token = ""
                continue
            removed += len(page.items)
            if clock.monotonic() - told >= TELL_EVERY:
                told = clock.monotonic()
                say(f"  {kind.plural}: {removed:,} removed, {page.metadata.remaining_item_count or 0:,} left")
            if not (token := page.metadata.continue_):
                break


class _PageMeta(msgspec.Struct, rename="camel"):
    continue_: str = msgspec.field(default="", name="continue")
    remaining_item_count: int | None = None


class _Page(msgspec.Struct):
    items: tuple[msgspec.Raw, ...] = ()
    metadata: _PageMeta = msgspec.field(default_factory=_PageMeta)


async def _remove_page(client: KubeClient, kind: Resource[Any], namespace: str, token: str) -> _Page:
    query = {"limit": str(PAGE)} | ({"continue": token} if token else {})
    answer = await client.request("DELETE", kind.path(namespace), query=query, body=_OPTIONS)
    return msgspec.json.decode(answer.body, type=_Page)
