"""Attaching to the main process of a container."""

from collections.abc import Callable
from typing import Any

import anyio

RunNode = Callable[..., Any]


def box(script: str, **more: Any) -> dict[str, Any]:
    return {"name": "main", "image": "localhost/host", "command": ["sh", "-c", script], **more}


async def test_input_reaches_a_container_and_its_output_and_exit_code_come_back(run_node: RunNode) -> None:
    script = "read line; echo got $line; echo trouble >&2; cat; exit 3"
    async with run_node() as stack:
        await stack.create_pod(
            "one", {"containers": [box(script, stdin=True, stdinOnce=True)], "restartPolicy": "Never"}
        )
        await stack.until_ready("one")
        session = await stack.attach("one", "main", stdin=b"first\nsecond\n")
        log = await stack.log("one", "main")

    assert session.out == b"got first\nsecond\n"
    assert session.err == b"trouble\n"
    assert session.code == 3
    assert sorted(log.splitlines()) == ["got first", "second", "trouble"]


async def test_a_container_may_have_a_terminal_that_it_controls(run_node: RunNode) -> None:
    script = "test -t 0 && test -t 1 && echo > /dev/tty && read line && echo got $line"
    async with run_node() as stack:
        await stack.create_pod("one", {"containers": [box(script, stdin=True, tty=True)], "restartPolicy": "Never"})
        await stack.until_ready("one")
        session = await stack.attach("one", "main", stdin=b"word\n", tty=True)

    assert session.out.split()[-2:] == [b"got", b"word"]
    assert session.code == 0


async def test_a_container_without_input_reads_nothing_and_is_only_watched(run_node: RunNode) -> None:
    async with run_node() as stack:
        script = "cat; echo end; until test -e watched; do echo still; sleep 0.02; done; echo really"
        await stack.create_pod("one", {"containers": [box(script)], "restartPolicy": "Never"})
        await stack.until_printed("one", "main", "end")
        with anyio.fail_after(60):
            async with stack.attached("one", "main", stdin=b"ignored\n") as session:
                while b"still" not in session.out:  # noqa: ASYNC110 - nobody tells us
                    await anyio.sleep(0.01)
                await stack.execute("one", "main", ["touch", "watched"])

    assert set(session.out.split()) == {b"still", b"really"}
