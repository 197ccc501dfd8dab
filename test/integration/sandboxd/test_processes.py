"""Processes that outlive their connections: streamed, numbered, started at most once."""

import json
import os
import signal
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import anyio.lowlevel
import pytest

from agent_sandbox.sandboxd import output_log, v1_processes


class Stream:
    """A client's end of a stream."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.output = {1: b"", 2: b""}
        self.sequence = 0
        self.notices: list[dict[str, Any]] = []
        self.sent = 0

    async def next(self) -> dict[str, Any] | None:
        """The next notice, or None for a piece of output."""
        message = await self.socket.receive(timeout=60)
        if message.type is aiohttp.WSMsgType.BINARY:
            channel, sequence = struct.unpack_from(">BQ", message.data)
            assert sequence == self.sequence + 1
            self.sequence = sequence
            self.output[channel] += message.data[9:]
            return None
        assert message.type is aiohttp.WSMsgType.TEXT, message
        notice: dict[str, Any] = json.loads(message.data)
        if notice["type"] == "gap":
            self.sequence = notice["last"]
        self.notices.append(notice)
        return notice

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self.next()

    async def until_notice(self, kind: str) -> dict[str, Any]:
        while True:
            notice = await self.next()
            if notice is not None and notice["type"] == kind:
                return notice

    async def type(self, data: bytes, offset: int | None = None) -> None:
        """Send input."""
        at = self.sent if offset is None else offset
        await self.socket.send_bytes(struct.pack(">Q", at) + data)
        self.sent = max(self.sent, at + len(data))

    async def tell(self, **notice: Any) -> None:
        await self.socket.send_str(json.dumps(notice))


@asynccontextmanager
async def started(daemon: Any, **request: Any) -> AsyncIterator[Stream]:
    async with daemon.session.ws_connect(daemon.url + "/v1/exec") as socket:
        await socket.send_str(json.dumps(request))
        yield Stream(socket)


@asynccontextmanager
async def attached(daemon: Any, process: str, after: int = 0, more: str = "") -> AsyncIterator[Stream]:
    async with daemon.session.ws_connect(f"{daemon.url}/v1/processes/{process}/stream?after={after}{more}") as socket:
        stream = Stream(socket)
        stream.sequence = after
        yield stream


async def call(daemon: Any, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    async with daemon.session.request(method, daemon.url + path, json=body) as response:
        text = await response.text()
        return response.status, json.loads(text) if text else None


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(60):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def test_output_comes_as_it_is_written_and_then_the_end(run_daemon: Any) -> None:
    async with (
        run_daemon() as daemon,
        started(daemon, shell="echo one; echo two >&2; read x; echo $x", stdin=True) as stream,
    ):
        begin = await stream.next()
        await stream.until(lambda: stream.output == {1: b"one\n", 2: b"two\n"})
        await stream.type(b"three\n")
        end = await stream.until_notice("exit")

    assert begin is not None
    assert begin["process"]["state"] == "running"
    assert stream.output[1] == b"one\nthree\n"
    assert end["process"]["state"] == "exited"
    assert end["process"]["exit_code"] == 0
    assert end["process"]["stdin_received"] == 6


async def test_lost_connection_loses_no_output(run_daemon: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    script = f"echo before; cat {tmp_path}/gate; i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done"
    async with run_daemon() as daemon:
        async with started(daemon, shell=script) as first:
            begin = await first.until_notice("process")
            await first.until(lambda: first.output[1] == b"before\n")
        await anyio.to_thread.run_sync((tmp_path / "gate").write_text, "open\n")
        async with attached(daemon, begin["process"]["id"], after=first.sequence) as second:
            await second.until_notice("exit")
        async with attached(daemon, begin["process"]["id"]) as whole:
            await whole.until_notice("exit")

    lines = b"".join(b"line %d\n" % number for number in range(2000))
    assert second.output[1] == b"open\n" + lines
    assert whole.output[1] == b"before\nopen\n" + lines


async def test_what_was_sent_and_not_confirmed_is_kept(run_daemon: Any) -> None:
    request = {"shell": "head -c 2000000 /dev/zero; echo end", "buffer_bytes": 100_000, "reader": "r"}
    async with run_daemon() as daemon:
        async with started(daemon, **request) as lost:
            begin = await lost.until_notice("process")
            await lost.until(lambda: len(lost.output[1]) >= 100_000)  # more the daemon must not give without a word
        async with attached(daemon, begin["process"]["id"], more="&reader=r") as stream:

            async def confirm() -> None:
                while True:
                    await stream.tell(type="ack", seq=stream.sequence)
                    await anyio.sleep(0.001)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(confirm)
                await stream.until_notice("exit")
                tasks.cancel_scope.cancel()

    assert not [notice for notice in stream.notices if notice["type"] == "gap"]
    assert len(stream.output[1]) == 2_000_004


async def test_reader_that_comes_anew_takes_the_place_of_its_lost_connection(run_daemon: Any) -> None:
    request = {"shell": "head -c 2000000 /dev/zero", "buffer_bytes": 100_000, "reader": "r"}
    async with run_daemon() as daemon, started(daemon, **request) as lost:
        begin = await lost.until_notice("process")
        # The daemon has not heard that this connection is dead, and would wait for its confirmations.
        async with attached(daemon, begin["process"]["id"], more="&reader=r") as stream:
            while stream.output[1] == b"" or stream.notices[-1]["type"] != "exit":
                await stream.next()
                await stream.tell(type="ack", seq=stream.sequence)
            with anyio.fail_after(60):
                while (await lost.socket.receive()).type is aiohttp.WSMsgType.BINARY:
                    pass

    assert lost.socket.closed
    assert len(stream.output[1]) == 2_000_000


async def test_clients_that_type_into_one_command_have_offsets_of_their_own(run_daemon: Any) -> None:
    async with run_daemon() as daemon, started(daemon, argv=["cat"], stdin=True, reader="a") as first:
        begin = await first.until_notice("process")
        path = f"/v1/processes/{begin['process']['id']}"
        await first.type(b"one ")
        await first.until(lambda: first.output[1] == b"one ")
        async with attached(daemon, begin["process"]["id"], more="&reader=b") as second:
            await second.type(b"two ")
            await first.until(lambda: first.output[1] == b"one two ")
            _, told = await call(daemon, "GET", path + "?reader=b")
            await first.type(b"three", offset=4)
            await first.tell(type="stdin_eof")
            await first.until_notice("exit")

    assert first.output[1] == b"one two three"
    assert (told["stdin_received"], told["stdin_written"]) == (4, 4)


async def test_same_operation_is_started_once(run_daemon: Any, tmp_path: Path) -> None:
    request = {"argv": ["sh", "-c", f"echo run >> {tmp_path}/runs; echo done"], "operation_id": "op"}
    async with run_daemon() as daemon:
        statuses = [(await call(daemon, "POST", "/v1/processes", request))[0] for _ in range(2)]
        async with started(daemon, **request) as stream:
            await stream.until_notice("exit")
        status, answer = await call(daemon, "POST", "/v1/processes", {"argv": ["true"], "operation_id": "op"})

    assert statuses == [201, 200]
    assert stream.output[1] == b"done\n"
    assert (tmp_path / "runs").read_text() == "run\n"
    assert (status, answer["code"]) == (409, "CONFLICT")


async def test_deadline_kills_the_group_and_keeps_what_came(run_daemon: Any) -> None:
    async with (
        run_daemon() as daemon,
        started(daemon, shell="echo partial; sleep 100 & sleep 100", timeout=1.5) as stream,
    ):
        end = await stream.until_notice("exit")

    assert stream.output[1] == b"partial\n"
    assert end["process"]["timed_out"]
    assert end["process"]["exit_code"] == -9


async def test_failure_to_start_is_told_in_the_process(run_daemon: Any) -> None:
    async with run_daemon() as daemon, started(daemon, argv=["no-such-program"]) as stream:
        end = await stream.until_notice("exit")

    assert end["process"]["state"] == "failed"
    assert "No such file" in end["process"]["error"]
    assert end["process"]["exit_code"] is None


async def test_input_that_is_sent_again_arrives_once(run_daemon: Any) -> None:
    async with run_daemon() as daemon, started(daemon, argv=["cat"], stdin=True) as stream:
        await stream.type(b"abc", offset=0)
        await stream.type(b"abcdef", offset=0)
        await stream.type(b"ef", offset=4)
        await stream.tell(type="stdin_eof")
        await stream.until_notice("exit")

    assert stream.output[1] == b"abcdef"


async def test_input_with_a_hole_is_refused(run_daemon: Any) -> None:
    async with run_daemon() as daemon, started(daemon, argv=["cat"], stdin=True) as stream:
        await stream.type(b"abc", offset=5)
        error = await stream.until_notice("error")

    assert error["code"] == "INVALID_ARGUMENT"


async def test_large_input_and_output_pass_with_a_small_buffer(run_daemon: Any) -> None:
    size = 4 * 1024 * 1024
    async with run_daemon() as daemon, started(daemon, argv=["cat"], stdin=True, buffer_bytes=100_000) as stream:

        async def feed() -> None:
            for _ in range(size // 65536):
                await stream.type(b"x" * 65536)
            await stream.tell(type="stdin_eof")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed)
            await stream.until_notice("exit")

    assert len(stream.output[1]) == size
    assert not [notice for notice in stream.notices if notice["type"] == "gap"]


async def test_output_that_nobody_reads_is_forgotten_from_the_front_and_the_gap_is_told(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        request = {"shell": "head -c 2000000 /dev/zero; echo end", "buffer_bytes": 100_000}
        _, process = await call(daemon, "POST", "/v1/processes", request)
        _, ended = await call(daemon, "GET", f"/v1/processes/{process['id']}/wait?timeout=60")
        async with attached(daemon, process["id"]) as stream:
            gap = await stream.until_notice("gap")
            await stream.until_notice("exit")

    assert ended["state"] == "exited"
    assert gap["first"] == 1
    assert stream.output[1].endswith(b"end\n")
    assert len(stream.output[1]) < 200_000


async def test_blocking_log_holds_the_command_until_somebody_reads(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        request = {"shell": "head -c 2000000 /dev/zero", "buffer_bytes": 100_000, "overflow": "block"}
        _, process = await call(daemon, "POST", "/v1/processes", request)
        _, waiting = await call(daemon, "GET", f"/v1/processes/{process['id']}/wait?timeout=0.2")
        async with attached(daemon, process["id"]) as stream:
            await stream.until_notice("exit")

    assert waiting["state"] == "running"
    assert len(stream.output[1]) == 2_000_000


async def test_silence_is_filled_with_heartbeats(run_daemon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v1_processes, "HEARTBEAT", 0.01)
    async with run_daemon() as daemon, started(daemon, argv=["sleep", "100"]) as stream:
        beat = await stream.until_notice("heartbeat")
        await stream.tell(type="signal", signal="TERM")
        end = await stream.until_notice("exit")

    assert beat["last_seq"] == 0
    assert end["process"]["exit_code"] == -15


async def test_terminal_has_a_size_that_changes_and_controls_its_command(run_daemon: Any) -> None:
    script = "tty; stty size; trap 'stty size; exit 3' WINCH; echo ready; while :; do sleep 0.05; done"
    async with run_daemon() as daemon, started(daemon, shell=script, pty={"cols": 100, "rows": 30}) as stream:
        await stream.until(lambda: b"ready" in stream.output[1])
        await stream.tell(type="resize", cols=120, rows=40)
        end = await stream.until_notice("exit")

    assert stream.output[1].startswith(b"/dev/pts/")
    assert b"30 100" in stream.output[1]
    assert b"40 120" in stream.output[1]
    assert end["process"]["exit_code"] == 3


async def test_terminal_takes_control_characters(run_daemon: Any) -> None:
    # A shell cannot trap what was ignored when it started; the daemon's own main() sees to that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    async with (
        run_daemon() as daemon,
        started(
            daemon, shell="trap 'echo caught; exit 5' INT; echo go; while :; do sleep 0.05; done", pty={}
        ) as stream,
    ):
        await stream.until(lambda: b"go" in stream.output[1])
        await stream.type(b"\x03")
        end = await stream.until_notice("exit")

    assert b"caught" in stream.output[1]
    assert end["process"]["exit_code"] == 5


async def test_end_of_input_ends_a_reader_on_a_terminal(run_daemon: Any) -> None:
    async with run_daemon() as daemon, started(daemon, argv=["cat"], pty={}) as stream:
        await stream.type(b"hello\n")
        await stream.tell(type="stdin_eof")
        end = await stream.until_notice("exit")

    assert end["process"]["exit_code"] == 0
    assert stream.output[1].count(b"hello") == 2


async def test_process_can_be_listed_signalled_waited_for_and_forgotten(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        _, process = await call(daemon, "POST", "/v1/processes", {"argv": ["sleep", "100"]})
        path = f"/v1/processes/{process['id']}"
        _, listed = await call(daemon, "GET", "/v1/processes")
        _, still = await call(daemon, "GET", path + "/wait?timeout=0")
        signalled, _ = await call(daemon, "POST", path + "/signal", {"signal": 2})
        _, ended = await call(daemon, "GET", path + "/wait?timeout=60")
        removed, _ = await call(daemon, "DELETE", path)
        missing, error = await call(daemon, "GET", path)

    assert [entry["id"] for entry in listed["processes"]] == [process["id"]]
    assert still["state"] == "running"
    assert signalled == 200
    assert ended["exit_code"] == -2
    assert (removed, missing, error["code"]) == (204, 404, "NOT_FOUND")


async def test_process_that_must_not_outlive_its_reader_ends_with_it(run_daemon: Any, tmp_path: Path) -> None:
    async with run_daemon() as daemon:
        async with started(daemon, argv=["sleep", "100"], on_disconnect="kill") as stream:
            begin = await stream.until_notice("process")
        _, ended = await call(daemon, "GET", f"/v1/processes/{begin['process']['id']}/wait?timeout=60")

    assert ended["exit_code"] == -9


async def test_what_a_process_left_behind_is_killed_with_it_although_it_has_ended(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        _, process = await call(daemon, "POST", "/v1/processes", {"shell": "sleep 1000 & echo $!"})
        path = f"/v1/processes/{process['id']}"
        async with attached(daemon, process["id"]) as stream:
            await stream.until_notice("exit")
        left = int(stream.output[1])
        os.kill(left, 0)
        await call(daemon, "POST", path + "/signal", {"signal": "KILL", "scope": "process"})
        os.kill(left, 0)
        await call(daemon, "POST", path + "/signal", {"signal": "KILL"})
        stat = Path(f"/proc/{left}/stat")
        await until(lambda: not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] in "ZX")


async def test_stopping_daemon_ends_processes(run_daemon: Any, tmp_path: Path) -> None:
    async with run_daemon() as daemon:
        _, process = await call(daemon, "POST", "/v1/processes", {"argv": ["sleep", "100"]})

    await until(lambda: not Path(f"/proc/{process['pid']}").exists())


async def test_variables_directory_and_shell_reach_the_process(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        (daemon.root / "sub").mkdir()
        async with started(daemon, shell="echo $A | tr a-z A-Z; pwd", env={"A": "x"}, cwd="sub") as stream:
            await stream.until_notice("exit")

    assert stream.output[1].decode() == f"X\n{daemon.root}/sub\n"


@pytest.mark.parametrize(
    "request_body",
    [
        {},
        {"argv": []},
        {"argv": ["a"], "shell": "b"},
        {"argv": "ls"},
        {"argv": ["ls"], "pty": 1},
        {"argv": ["ls"], "pty": {"cols": 0}},
        {"argv": ["ls"], "timeout": -1},
        {"argv": ["ls"], "overflow": "x"},
        {"argv": ["ls"], "buffer_bytes": 1},
        {"argv": ["ls"], "user": -1},
        {"argv": ["ls"], "stdin": "yes"},
    ],
)
async def test_request_that_makes_no_sense_is_refused_both_ways(run_daemon: Any, request_body: dict[str, Any]) -> None:
    async with run_daemon() as daemon:
        status, answer = await call(daemon, "POST", "/v1/processes", request_body)
        async with started(daemon, **request_body) as stream:
            error = await stream.until_notice("error")

    assert (status, answer["code"]) == (400, "INVALID_ARGUMENT")
    assert error["code"] == "INVALID_ARGUMENT"


async def test_limit_of_processes_is_told_with_429(run_daemon: Any) -> None:
    async with run_daemon(max_processes=1) as daemon:
        await call(daemon, "POST", "/v1/processes", {"argv": ["sleep", "100"]})
        status, answer = await call(daemon, "POST", "/v1/processes", {"argv": ["true"]})

    assert (status, answer["code"]) == (429, "RESOURCE_EXHAUSTED")


async def test_unknown_user_is_told_in_the_process(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        _, process = await call(daemon, "POST", "/v1/processes", {"argv": ["true"], "user": "nobody-of-that-name"})

    assert process["state"] == "failed"
    assert "nobody-of-that-name" in process["error"]


async def test_reader_that_left_holds_the_command_up_for_a_while_only(
    run_daemon: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(output_log, "ATTACH_GRACE", 0.3)
    script = f"echo first; head -c 2000000 /dev/zero; echo > {tmp_path}/through"
    async with run_daemon() as daemon:
        async with started(daemon, shell=script, buffer_bytes=100_000) as stream:
            await stream.until(lambda: stream.sequence >= 1)
        await until((tmp_path / "through").exists)


async def test_the_farewell_of_a_stream_waits_for_a_client_that_is_still_sending(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        _, process = await call(daemon, "POST", "/v1/processes", {"argv": ["true"], "stdin": True})
        await call(daemon, "GET", f"/v1/processes/{process['id']}/wait")
        url = f"{daemon.url}/v1/processes/{process['id']}/stream"
        async with daemon.session.ws_connect(url, autoclose=False) as socket:
            stream = Stream(socket)
            await stream.until_notice("exit")
            for _ in range(16):
                await stream.type(bytes(2**18))
            farewell = await socket.receive(timeout=60)

    assert farewell.type is aiohttp.WSMsgType.CLOSE
