"""The node's end of the helper's control channel, with the other end in the test's hands."""

import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
import pytest

from agent_sandbox.local.node.errors import HelperError, HelperGoneError
from agent_sandbox.local.node.helper import channel
from agent_sandbox.local.node.helper_client import HelperClient


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[HelperClient, socket.socket]]:
    mine, theirs = channel.pair()
    mine.setblocking(False)
    client = HelperClient(mine)
    with theirs:
        async with anyio.create_task_group() as group:
            group.start_soon(client.receive_forever, lambda *_: None)
            yield client, theirs
            group.cancel_scope.cancel()
    client.close()


async def test_a_descriptor_that_is_closed_already_fails_its_request_and_no_other() -> None:
    async with connected() as (client, theirs), anyio.create_task_group() as group:
        closed = os.dup(theirs.fileno())
        os.close(closed)
        with anyio.fail_after(60), pytest.raises(HelperError) as caught:
            await client.request("enter", fds=[closed])

        async def answer() -> None:
            request, _ = await anyio.to_thread.run_sync(channel.receive, theirs)
            channel.send(theirs, {"id": request["id"], "result": "done"})

        group.start_soon(answer)
        result, _ = await client.request("kill")

    assert caught.value.errno == errno.EBADF
    assert result == "done"


async def test_a_helper_that_is_gone_is_told_from_a_request_that_cannot_be_sent() -> None:
    mine, theirs = channel.pair()
    mine.setblocking(False)
    theirs.close()
    client = HelperClient(mine)

    with pytest.raises(HelperGoneError):
        await client.request("kill")
    client.close()
