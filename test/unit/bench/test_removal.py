"""What a run made is deleted kind by kind and page by page, with progress."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Unpack

import msgspec

from agent_sandbox.bench.removal import remove_all
from agent_sandbox.kube import KubeClient, RawResponse
from agent_sandbox.kube.transport import RawStream, RequestOptions, StreamOptions
from agent_sandbox.testing import VirtualClock
from agent_sandbox_api.core import PODS, SERVICES

GONE = {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "continue is too old"}


class Paging:
    """Answers a delete of a collection as kube-apiserver does: a page, and where the next one begins."""

    host = "server"

    def __init__(self, clock: VirtualClock, pages: list[tuple[int, str]]) -> None:
        self.asked: list[str] = []
        self._clock = clock
        self._pages = pages

    async def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> RawResponse:
        await self._clock.sleep(1.5)
        query = options.get("query") or {}
        self.asked.append(f"{method} {path} {query['limit']} {query.get('continue', '')}".strip())
        count, token = self._pages.pop(0)
        if count < 0:
            return RawResponse(410, {}, msgspec.json.encode(GONE))
        metadata = {"continue": token} | ({"remainingItemCount": 700} if token else {})
        return RawResponse(200, {}, msgspec.json.encode({"items": [{}] * count, "metadata": metadata}))

    @asynccontextmanager
    async def stream(self, method: str, path: str, **options: Unpack[StreamOptions]) -> AsyncIterator[RawStream]:
        raise AssertionError("nothing is streamed here")
        yield

    async def aclose(self) -> None:
        """Nothing to close."""


async def remove(clock: VirtualClock, pages: list[tuple[int, str]]) -> tuple[list[str], list[str]]:
    server, said = Paging(clock, pages), list[str]()
    client = KubeClient(server, clock=clock)
    await remove_all(client, [PODS, SERVICES], "bench", clock=clock, say=said.append)
    return server.asked, said


async def test_every_page_of_one_kind_goes_before_the_next_kind(virtual_clock: VirtualClock) -> None:
    asked, said = await remove(virtual_clock, [(500, "second"), (500, "third"), (200, ""), (0, "")])

    pods = "DELETE /api/v1/namespaces/bench/pods 500"
    assert asked == [pods, f"{pods} second", f"{pods} third", "DELETE /api/v1/namespaces/bench/services 500"]
    assert said == ["  pods: 1,000 removed, 700 left", "  services: 0 removed, 0 left"]


async def test_a_continuation_that_is_too_old_begins_again_with_what_is_left(virtual_clock: VirtualClock) -> None:
    asked, _ = await remove(virtual_clock, [(500, "second"), (-1, ""), (300, ""), (0, "")])

    assert [each.split(" ")[3:] for each in asked[:3]] == [[], ["second"], []]
