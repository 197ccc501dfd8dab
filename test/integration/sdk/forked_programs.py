"""Programs that hold sandboxes and are sent signals, forked from one process that has imported the SDK already.

In, a line of JSON per program: its name, how to reach the cluster, and perhaps a signal that it sends to itself at a
certain turn of its event loop. Out: its process id, and its exit status when it has ended.
"""

import asyncio
import gc
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import anyio
import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401 - clients import these when they connect
import kubernetes_asyncio.client
import kubernetes_asyncio.config  # noqa: F401
import uvloop

from agent_sandbox import AsyncSandboxes, ConnectionOptions, Sandboxes

Order = dict[str, Any]


def options_of(order: Order) -> ConnectionOptions:
    return ConnectionOptions(kubeconfig=order["kubeconfig"], local=False, api_url=order["api_url"])


async def use(order: Order) -> None:
    if order["turn"] is not None:
        signal_at_turn(order["turn"], order["signal"])
    async with AsyncSandboxes(options=options_of(order)) as sandboxes, sandboxes.use("t") as sandbox:
        await sandbox.run("true")


def signal_at_turn(turns: int, number: int) -> None:
    loop = asyncio.get_running_loop()

    def turn(left: int) -> None:
        if left > 0:
            loop.call_soon(turn, left - 1)
        else:
            os.kill(os.getpid(), number)

    turn(turns)


async def use_in_a_group(order: Order) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(use(order))
        tasks.create_task(use(order))


async def use_beside(order: Order) -> None:
    """Nobody waits for the task that uses the sandbox when the main one is cancelled."""
    over = asyncio.Event()
    task = asyncio.create_task(use(order))  # noqa: TID251 - what users write
    task.add_done_callback(lambda _: over.set())
    await over.wait()


async def use_after_sync(order: Order) -> None:
    """A synchronous client in the middle of asynchronous code: what beginners write."""
    use_synchronously(order)


def use_synchronously(order: Order) -> None:
    with Sandboxes(options=options_of(order)) as sandboxes, sandboxes.use("t") as sandbox:
        sandbox.run("true")


def use_with_a_handler_that_exits(order: Order) -> None:
    signal.signal(order["signal"], lambda number, _: sys.exit(128 + number))
    asyncio.run(use(order))


def use_with_ctrl_c_ignored(order: Order) -> None:
    """As in a job that a shell started in the background: ``asyncio.run`` leaves Ctrl-C alone then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(use(order))


PROGRAMS: dict[str, Callable[[Order], None]] = {
    "asyncio": lambda order: asyncio.run(use(order)),
    "uvloop": lambda order: uvloop.run(use(order)),
    "anyio": lambda order: anyio.run(use, order),
    "group": lambda order: asyncio.run(use_in_a_group(order)),
    "beside": lambda order: asyncio.run(use_beside(order)),
    "sync": use_synchronously,
    "sync in async": lambda order: asyncio.run(use_after_sync(order)),
    "handler": use_with_a_handler_that_exits,
    "background": use_with_ctrl_c_ignored,
}


def main() -> None:
    anyio.run(anyio.sleep, 0)  # imports what is needed for that
    gc.freeze()
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            PROGRAMS[order["program"]](order)
            return
        tell(pid)
        tell(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def tell(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
