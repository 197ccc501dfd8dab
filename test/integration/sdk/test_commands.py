"""Commands over the versioned API: a scripted daemon that breaks connections where the real one would not."""

import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import anyio
import pytest
from aiohttp import web

from agent_sandbox.sdk import (
    AsyncCommands,
    CommandTimeoutError,
    ConnectionOptions,
    Output,
    SandboxConnectionError,
    SandboxGoneError,
    SandboxOutcomeUnknownError,
    SandboxProcessNotFoundError,
    SandboxRequestError,
    Terminal,
    UnsupportedByRuntimeError,
)
from agent_sandbox.sdk import commands as commands_module
from agent_sandbox.sdk import process as process_module
from agent_sandbox.sdk.routes import RouterRoute, make_session
from agent_sandbox.sdk.wire import Target, Wire

BREAK = object()
"""In a script: the connection is cut here, and the next attachment goes on behind it."""


SILENCE = object()
"""In a script: nothing is said until the client gives up, and the next attachment goes on behind it."""

SIGNAL = object()
"""In a script: a signal is waited for."""


def output(sequence: int, data: bytes, channel: int = 1) -> bytes:
    """A piece of output on the wire."""
    return struct.pack(">BQ", channel, sequence) + data


class ScriptedDaemon:
    """Speaks the versioned API; what it says in a stream is a script.

    Attributes:
        script: messages of the stream; ``BREAK`` cuts the connection, ``SIGNAL`` waits for a signal.
        starts: the start requests.
        attachments: the ``after`` of each attachment.
        received: binary messages from the client.
        signals: signals that were sent.
        knows: whether it still knows the process.
        others: what else it lists.
        versioned: whether it has the versioned API at all.
    """

    def __init__(self) -> None:
        self.script: list[Any] = []
        self.starts: list[dict[str, Any]] = []
        self.attachments: list[int] = []
        self.received: list[bytes] = []
        self.notices: list[dict[str, Any]] = []
        self.signals: list[Any] = []
        self.signalled = anyio.Event()
        self.show_status = 200
        self.knows = True
        self.others: list[dict[str, Any]] = []
        self.versioned = True
        self.break_at_start = False
        self.asked = anyio.Event()
        self.answer_starts: anyio.Event | None = None
        self.health_status = 200
        self.unanswered = 0
        self.stdin_received = 0
        self.state: dict[str, Any] = {"state": "running", "exit_code": None}

    def process(self, **changes: Any) -> dict[str, Any]:
        """The process as the daemon describes it."""
        operation = self.starts[-1]["operation_id"] if self.starts else "?"
        described = {"id": "p1", "operation_id": operation, "pid": 7, "argv": ["x"], "last_seq": 0}
        return {**described, "stdin_received": self.stdin_received, **self.state, **changes}

    def exit(self, code: int = 0, **changes: Any) -> dict[str, Any]:
        """The end of the process, as a message."""
        return {"type": "exit", "process": self.process(state="exited", exit_code=code, **changes)}

    def app(self) -> web.Application:
        """The daemon as a server."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/v1/health", self.health),
                web.get("/healthz", self.health),
                web.get("/v1/exec", self.start),
                web.get("/v1/processes", self.list),
                web.get("/v1/processes/p1", self.show),
                web.get("/v1/processes/p1/stream", self.attach),
                web.post("/v1/processes/p1/signal", self.signal),
                web.post("/v1/processes/p1/resize", self.signal),
                web.post("/execute", self.execute),
            ]
        )
        return app

    async def health(self, request: web.Request) -> web.Response:
        if not self.versioned:
            raise web.HTTPNotFound
        return web.json_response({"status": "ok"}, status=self.health_status, headers={"X-Sandboxd-Version": "1"})

    async def execute(self, request: web.Request) -> web.Response:
        self.starts.append(await request.json())
        return web.json_response({"stdout": "legacy", "stderr": "", "exit_code": 0})

    async def start(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.starts.append(await socket.receive_json())
        self.asked.set()
        if self.answer_starts is not None:
            await self.answer_starts.wait()
        if self.break_at_start:
            assert request.transport is not None
            request.transport.abort()
            return socket
        return await self.play(socket, request)

    async def attach(self, request: web.Request) -> web.WebSocketResponse:
        if not self.knows:
            raise web.HTTPNotFound(text=json.dumps({"code": "NOT_FOUND", "message": "no such process"}))
        self.attachments.append(int(request.query["after"]))
        if self.unanswered:
            self.unanswered -= 1
            await anyio.sleep_forever()
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        return await self.play(socket, request)

    async def play(self, socket: web.WebSocketResponse, request: web.Request) -> web.WebSocketResponse:
        await socket.send_json({"type": "process", "process": self.process()})
        while self.script:
            message = self.script.pop(0)
            if message is BREAK:
                assert request.transport is not None
                request.transport.abort()
                return socket
            if message is SILENCE:
                async for _ in socket:
                    pass
                return socket
            if message is SIGNAL:
                await self.signalled.wait()
            elif isinstance(message, str):  # wait for input: "stdin" one binary message, "eof" the end of input
                await self.take(socket, message)
            elif isinstance(message, bytes):
                await socket.send_bytes(message)
            else:
                await socket.send_json(message)
        await socket.close()
        return socket

    async def take(self, socket: web.WebSocketResponse, kind: str) -> None:
        while True:
            message = await socket.receive()
            if message.type is aiohttp.WSMsgType.BINARY:
                self.received.append(message.data)
                if kind == "stdin":
                    return
            elif message.type is aiohttp.WSMsgType.TEXT:
                self.notices.append(message.json())
                if kind == "eof":
                    return
            else:
                raise AssertionError(f"the client sent {message.type}")

    async def list(self, request: web.Request) -> web.Response:
        return web.json_response({"processes": [*self.others, *([self.process()] if self.knows else [])]})

    async def show(self, request: web.Request) -> web.Response:
        if not self.knows:
            return web.json_response({"code": "NOT_FOUND", "message": "no such process"}, status=404)
        return web.json_response(self.process(), status=self.show_status)

    async def signal(self, request: web.Request) -> web.Response:
        self.signals.append(await request.json())
        self.signalled.set()
        return web.json_response({})


@asynccontextmanager
async def serving(daemon: ScriptedDaemon) -> AsyncIterator[tuple[AsyncCommands, web.AppRunner]]:
    """The commands of a sandbox in which this daemon runs."""
    runner = web.AppRunner(daemon.app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with make_session(ConnectionOptions()) as session:
            route = RouterRoute(session, f"http://127.0.0.1:{runner.addresses[0][1]}", {})
            yield AsyncCommands(Wire(route, lambda: Target("default", "box"), 8888)), runner
    finally:
        await runner.cleanup()


async def test_output_comes_in_order_and_separated() -> None:
    daemon = ScriptedDaemon()
    daemon.script = [output(1, b"one\n"), output(2, b"bad\n", 2), output(3, b"two\n"), daemon.exit(3)]
    async with serving(daemon) as (commands, _):
        process = await commands.start(["x", "y"], env={"A": "b"}, cwd="/w")
        pieces = [piece async for piece in process]

    assert pieces == [Output("stdout", b"one\n", 1), Output("stderr", b"bad\n", 2), Output("stdout", b"two\n", 3)]
    assert process.info.exit_code == 3
    assert daemon.starts[0]["argv"] == ["x", "y"]
    assert daemon.starts[0]["env"] == {"A": "b"}
    assert daemon.starts[0]["cwd"] == "/w"


async def test_a_string_is_for_the_shell_and_a_sequence_is_not() -> None:
    daemon = ScriptedDaemon()
    async with serving(daemon) as (commands, _):
        daemon.script = [daemon.exit()]
        await commands.run("a | b")
        daemon.script = [daemon.exit()]
        await commands.run(["a", "|", "b"])

    assert daemon.starts[0]["shell"] == "a | b"
    assert daemon.starts[1]["argv"] == ["a", "|", "b"]


async def test_a_broken_connection_loses_and_doubles_nothing() -> None:
    daemon = ScriptedDaemon()
    daemon.script = [output(1, b"a"), output(2, b"b"), BREAK, output(2, b"b"), output(3, b"c"), BREAK, daemon.exit()]
    async with serving(daemon) as (commands, _):
        result = await commands.run(["x"])

    assert result.stdout == "abc"
    assert daemon.attachments == [2, 3]
    assert len(daemon.starts) == 1


async def test_a_command_is_not_started_twice_when_the_answer_to_its_start_is_lost() -> None:
    daemon = ScriptedDaemon()
    daemon.break_at_start = True
    daemon.others = [daemon.process(id="p0", operation_id="of another")]
    daemon.script = [output(1, b"once"), daemon.exit()]
    async with serving(daemon) as (commands, _):
        result = await commands.run(["x"])

    assert result.stdout == "once"
    assert len(daemon.starts) == 1


async def test_a_start_that_nobody_remembers_is_of_unknown_outcome() -> None:
    daemon = ScriptedDaemon()
    daemon.break_at_start = True
    daemon.knows = False
    daemon.others = [daemon.process(id="p0", operation_id="of another")]
    async with serving(daemon) as (commands, _):
        with pytest.raises(SandboxOutcomeUnknownError, match="not started again"):
            await commands.run(["x"])

    assert len(daemon.starts) == 1


async def test_a_daemon_that_was_started_anew_is_a_typed_error() -> None:
    daemon = ScriptedDaemon()
    daemon.script = [output(1, b"a"), BREAK]
    async with serving(daemon) as (commands, _):
        process = await commands.start(["x"])
        assert (await anext(process)).data == b"a"
        daemon.knows = False
        with pytest.raises(SandboxProcessNotFoundError, match="started anew"):
            await anext(process)


async def test_a_daemon_that_stays_dead_is_a_typed_error_and_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "DEAD_SECONDS", 0.2)
    daemon = ScriptedDaemon()
    daemon.script = [output(1, b"a"), "eof"]
    async with serving(daemon) as (commands, runner):
        process = await commands.start(["x"])
        assert (await anext(process)).data == b"a"
        await runner.cleanup()
        with anyio.fail_after(60), pytest.raises(SandboxGoneError, match="died"):
            await anext(process)


async def test_an_attempt_that_the_lost_network_swallowed_says_nothing_of_the_sandbox(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process_module, "ATTEMPT_SECONDS", 1)
    monkeypatch.setattr(process_module, "DEAD_SECONDS", 0.01)
    monkeypatch.setattr(process_module, "_PAUSE", 0)
    daemon = ScriptedDaemon()
    daemon.script = [output(1, b"a"), BREAK, output(2, b"b"), daemon.exit()]
    daemon.unanswered = 1  # and by the time it is given up, the way is open again
    async with serving(daemon) as (commands, _):
        result = await commands.run(["x"])

    assert result.stdout == "ab"
    assert daemon.attachments == [1, 1]


async def test_a_network_that_stays_away_ends_the_stream_but_says_that_the_process_may_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process_module, "DEAD_SECONDS", 0.1)
    monkeypatch.setattr(process_module, "RECONNECT_SECONDS", 0.4)

    async def way_is_closed(self: Wire) -> bool:
        return False

    monkeypatch.setattr(Wire, "is_way_open", way_is_closed)
    daemon = ScriptedDaemon()
    daemon.script = [output(1, b"a"), "eof"]
    async with serving(daemon) as (commands, runner):
        process = await commands.start(["x"])
        assert (await anext(process)).data == b"a"
        await runner.cleanup()
        with pytest.raises(SandboxConnectionError, match="connect to it again by its id"):
            await anext(process)


async def test_silence_without_heartbeats_opens_the_stream_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "SILENCE_SECONDS", 1.5)
    daemon = ScriptedDaemon()
    daemon.script = [output(1, b"a"), SILENCE, output(2, b"b"), daemon.exit()]
    async with serving(daemon) as (commands, _):
        process = await commands.start(["x"])
        pieces = [piece.data async for piece in process]

    assert pieces == [b"a", b"b"]
    assert daemon.attachments == [1]


async def test_input_arrives_once_although_the_connection_broke() -> None:
    daemon = ScriptedDaemon()
    daemon.script = ["stdin", BREAK, output(1, b"again"), "stdin", "eof", daemon.exit()]
    async with serving(daemon) as (commands, _):
        process = await commands.start(["x"], stdin=True)
        await process.send_stdin("hello ")
        assert (await anext(process)).data == b"again"  # only the second attachment says that
        await process.send_stdin(b"world")
        await process.close_stdin()
        result = await process.wait()

    assert result.exit_code == 0
    assert daemon.attachments == [0]
    whole = bytearray()
    for message in daemon.received:
        (offset,) = struct.unpack_from(">Q", message)
        whole[offset : offset + len(message) - 8] = message[8:]
    assert bytes(whole) == b"hello world"


async def test_input_that_cannot_be_sent_ends_the_command_and_is_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left alone, the command would wait for the rest of its input for ever."""
    monkeypatch.setattr(process_module, "STDIN_WINDOW", 0)
    daemon = ScriptedDaemon()
    daemon.script = ["stdin", SIGNAL, daemon.exit(-9)]
    daemon.show_status = 500
    async with serving(daemon) as (commands, _):
        with pytest.raises(SandboxRequestError, match="500"), anyio.fail_after(60):
            await commands.run(["cat"], stdin="hello", timeout=None)

    assert daemon.signals == [{"signal": "SIGKILL", "scope": "group"}]


async def test_callbacks_get_whole_characters_and_may_be_async() -> None:
    daemon = ScriptedDaemon()
    snow = "☃".encode()
    daemon.script = [output(1, b"a" + snow[:1]), output(2, snow[1:]), output(3, b"e", 2), daemon.exit()]
    seen: list[str] = []
    errors: list[str] = []

    async def take(text: str) -> None:
        errors.append(text)

    async with serving(daemon) as (commands, _):
        result = await commands.run(["x"], on_stdout=seen.append, on_stderr=take)

    assert "".join(seen) == "a☃" == result.stdout
    assert seen == ["a", "☃"]
    assert errors == ["e"]


async def test_only_so_much_output_is_kept_and_the_result_says_so() -> None:
    daemon = ScriptedDaemon()
    daemon.script = [*(output(number, b"x" * 100) for number in range(1, 11)), daemon.exit()]
    passed: list[str] = []
    async with serving(daemon) as (commands, _):
        result = await commands.run(["x"], max_output=250, on_stdout=passed.append)

    assert result.stdout == "x" * 250
    assert result.stdout_truncated
    assert not result.stderr_truncated
    assert sum(map(len, passed)) == 1000


async def test_a_timeout_carries_the_output_until_then() -> None:
    daemon = ScriptedDaemon()
    daemon.script = [output(1, b"half"), daemon.exit(-9, timed_out=True)]
    async with serving(daemon) as (commands, _):
        with pytest.raises(CommandTimeoutError) as caught:
            await commands.run(["x"], timeout=1)

    assert caught.value.stdout == "half"
    assert caught.value.killed
    assert daemon.starts[0]["timeout"] == 1


async def test_a_cancelled_run_kills_its_command() -> None:
    daemon = ScriptedDaemon()
    daemon.script = [output(1, b"a"), "eof"]
    async with serving(daemon) as (commands, _):
        with anyio.move_on_after(1):
            await commands.run(["x"])

    assert daemon.signals == [{"signal": "SIGKILL", "scope": "group"}]


async def test_a_start_that_is_cancelled_before_its_answer_leaves_no_command() -> None:
    daemon = ScriptedDaemon()
    daemon.answer_starts = anyio.Event()
    async with serving(daemon) as (commands, _), anyio.create_task_group() as tasks:
        tasks.start_soon(commands.start, ["sleep", "1000"])
        await daemon.asked.wait()
        tasks.cancel_scope.cancel()
        daemon.answer_starts.set()

    assert daemon.signals == [{"signal": "SIGKILL", "scope": "group"}]


async def test_a_start_that_is_cancelled_does_not_wait_for_a_daemon_that_is_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commands_module, "_START_SECONDS", 0.05)
    daemon = ScriptedDaemon()
    daemon.answer_starts = anyio.Event()
    async with serving(daemon) as (commands, _):
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(commands.start, ["sleep", "1000"])
                await daemon.asked.wait()
                tasks.cancel_scope.cancel()
        daemon.answer_starts.set()


async def test_forgotten_output_is_counted_and_the_result_says_that_it_is_cut() -> None:
    daemon = ScriptedDaemon()
    daemon.script = [output(1, b"a"), {"type": "gap", "first": 2, "last": 4}, output(5, b"b"), daemon.exit()]
    async with serving(daemon) as (commands, _):
        process = await commands.start(["x"], overflow="drop")
        result = await process.wait()

    assert process.missed == 3
    assert result.stdout == "ab"
    assert result.stdout_truncated


async def test_what_was_read_is_confirmed_in_large_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "ACK_BYTES", 10)
    daemon = ScriptedDaemon()
    daemon.script = [output(1, b"12345"), output(2, b"12345"), output(3, b"1"), "eof", daemon.exit()]
    async with serving(daemon) as (commands, _):
        await commands.run(["x"])

    assert daemon.notices == [{"type": "ack", "seq": 2}]
    assert daemon.starts[0]["reader"]


async def test_a_runtime_that_is_overloaded_is_not_taken_for_an_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = ScriptedDaemon()
    daemon.script = [daemon.exit()]
    daemon.health_status = 503
    async with serving(daemon) as (commands, _):
        with pytest.raises(SandboxRequestError, match="503"):
            await commands.run(["x"])
        daemon.health_status = 200
        await commands.run(["x"])

    assert "argv" in daemon.starts[0]


async def test_what_cannot_be_started_says_why() -> None:
    daemon = ScriptedDaemon()
    daemon.state = {"state": "failed", "error": "no such file: x"}
    daemon.script = [{"type": "exit", "process": daemon.process()}]
    async with serving(daemon) as (commands, _):
        result = await commands.run(["x"])

    assert (result.exit_code, result.stderr) == (127, "no such file: x")


async def test_a_refused_start_is_an_error_of_the_request() -> None:
    daemon = ScriptedDaemon()
    async with serving(daemon) as (commands, _):
        daemon.script = []
        daemon.process = lambda **_: {"id": "p1", "state": "running"}  # type: ignore[method-assign]

        async def refuse(socket: web.WebSocketResponse, request: web.Request) -> web.WebSocketResponse:
            await socket.send_json({"type": "error", "code": "RESOURCE_EXHAUSTED", "message": "256 processes run"})
            await socket.close(code=1008)
            return socket

        daemon.play = refuse  # type: ignore[method-assign]
        with pytest.raises(SandboxRequestError, match="256 processes run") as caught:
            await commands.run(["x"])

    assert caught.value.code == "RESOURCE_EXHAUSTED"


async def test_processes_are_listed_found_again_signalled_and_resized() -> None:
    daemon = ScriptedDaemon()
    daemon.starts = [{"operation_id": "o"}]
    async with serving(daemon) as (commands, _):
        listed = await commands.list()
        process = await commands.connect("p1", after=4)
        daemon.script = [output(5, b"later"), daemon.exit()]
        await process.signal("SIGINT", group=False)
        await process.resize(100, 30)
        pieces = [piece async for piece in process]

    assert [info.id for info in listed] == ["p1"]
    assert daemon.attachments == [4]
    assert [piece.data for piece in pieces] == [b"later"]
    assert daemon.signals == [{"signal": "SIGINT", "scope": "process"}, {"cols": 100, "rows": 30}]


async def test_a_terminal_is_asked_for_by_its_size() -> None:
    daemon = ScriptedDaemon()
    daemon.script = [daemon.exit()]
    async with serving(daemon) as (commands, _):
        await (await commands.start(["vi"], terminal=Terminal(120, 40))).wait()

    assert daemon.starts[0]["pty"] == {"cols": 120, "rows": 40}
    assert daemon.starts[0]["stdin"] is True


async def test_a_legacy_runtime_gets_shell_environment_and_directory_in_its_one_line() -> None:
    daemon = ScriptedDaemon()
    daemon.versioned = False
    seen: list[str] = []
    async with serving(daemon) as (commands, _):
        result = await commands.run("echo $A", env={"A": "b c"}, cwd="/x y", on_stdout=seen.append)

    assert result.stdout == "legacy" == "".join(seen)
    assert daemon.starts[0]["command"] == (
        "env 'A=b c' /bin/sh -c 'cd \"$0\" && exec \"$@\"' '/x y' /bin/sh -c 'echo $A'"
    )


async def test_what_a_legacy_runtime_cannot_do_is_said_before_anything_runs() -> None:
    daemon = ScriptedDaemon()
    daemon.versioned = False
    async with serving(daemon) as (commands, _):
        with pytest.raises(UnsupportedByRuntimeError, match="background processes"):
            await commands.start(["x"])
        with pytest.raises(UnsupportedByRuntimeError, match="standard input"):
            await commands.run(["x"], stdin="y")

    assert daemon.starts == []
