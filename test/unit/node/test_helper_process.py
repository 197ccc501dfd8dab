"""A helper that outlives its node, asked by hand: no namespaces, no Pods, only processes."""

import socket
from pathlib import Path
from typing import Any

import anyio.to_thread

from agent_sandbox.local.node.helper import channel
from agent_sandbox.local.node.helper_process import HelperProcess

SLOW_TO_TELL = "sleep 0.2; exec 9>&-; exec sleep 1000"
"""Closes descriptor 9, on which its first process is told, after a while."""


def _setup(control: socket.socket, op: str, number: int) -> Any:
    broker, theirs = channel.pair()
    with broker, theirs:
        values = {"revision": "one", "patience": 30, "root": False, "bare": True, "binds": [], "nft": "", "ruleset": ""}
        channel.send(control, {"id": number, "op": op, **values}, [theirs.fileno()])
        reply, _ = channel.receive(control)
        return reply


def _spawn(number: int) -> dict[str, Any]:
    program: dict[str, Any] = {
        "argv": ["/bin/sh", "-c", SLOW_TO_TELL],
        "env": {},
        "numbers": [],
        "more": [],
        "uid": None,
        "log": "",
    }
    return {
        "id": number,
        "op": "spawn",
        "key": "a/1",
        "pod": "a",
        "info": 9,
        "lasting": True,
        "replaces": "",
        **program,
    }


async def test_the_answer_to_a_node_that_died_does_not_reach_the_next_one(tmp_path: Path) -> None:
    first = await HelperProcess.start(tmp_path)
    first.control.setblocking(True)
    await anyio.to_thread.run_sync(_setup, first.control, "setup", 1)
    channel.send(first.control, _spawn(2))
    await anyio.sleep(0.1)
    first.control.close()

    second = HelperProcess.find(tmp_path)
    assert second is not None
    second.control.settimeout(60)
    adopted = await anyio.to_thread.run_sync(_setup, second.control, "adopt", 2)
    second.control.settimeout(0.5)
    try:
        stray = await anyio.to_thread.run_sync(channel.receive, second.control)
    except TimeoutError:
        stray = None
    second.remember_descendants()
    channel.send(second.control, {"id": 0, "op": "end"})
    await second.until_ended()
    await first.until_ended()
    for process in (first, second):
        process.close()

    assert (adopted["id"], adopted["result"]["generation"]) == (2, 2)
    assert stray is None
