"""Commands through the legacy contract: honest about their output, their end and their number."""

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from agent_sandbox.sandboxd import execution


def is_gone(pid: int) -> bool:
    """Whether a process has ended (a zombie of somebody else counts)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def until(condition: Callable[[], bool]) -> bool:
    """Let others run until a condition of the outside world holds; False after a minute."""
    with anyio.move_on_after(60):
        while not condition():
            await anyio.lowlevel.checkpoint()
        return True
    return False


async def gone(pid: int) -> bool:
    """Wait until a process has ended."""
    return await until(lambda: is_gone(pid))


async def pid_in(file: Path) -> int:
    """Wait until a command has written its process identifier."""

    def text() -> str:
        return file.read_text() if file.exists() else ""

    assert await until(lambda: text().endswith("\n"))
    return int(text())


async def test_runtime_says_that_it_is_active(run_runtime: Any) -> None:
    async with run_runtime() as runtime, runtime.session.get(runtime.url + "/") as response:
        assert await response.json() == {"status": "ok", "message": "Sandbox Runtime is active."}


async def test_daemon_says_what_it_is(run_daemon: Any) -> None:
    async with run_daemon() as daemon, daemon.session.get(daemon.url + "/") as response:
        assert response.headers["Server"] == "agent-sandbox-sandboxd"
        assert response.headers["X-Sandboxd-Version"] == "1"


async def test_streams_and_exit_code_come_back(run_runtime: Any) -> None:
    async with run_runtime() as runtime:
        answer = await runtime.execute("sh -c 'echo out; echo err >&2; exit 3'")

    assert (answer["stdout"], answer["stderr"], answer["exit_code"]) == ("out\n", "err\n", 3)
    assert answer.get("started", True)
    assert not answer.get("timed_out")


async def test_there_is_no_shell(run_runtime: Any) -> None:
    async with run_runtime() as runtime:
        answer = await runtime.execute("echo $HOME | cat && echo * > x")

    assert answer["stdout"] == "$HOME | cat && echo * > x\n"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("no-such-program", "No such file"),
        ("echo 'unbalanced", "quotation"),
        ("", "empty"),
        ([], "empty"),
        ("/", "denied"),
    ],
)
async def test_failure_to_start_is_told_in_band(run_runtime: Any, command: Any, words: str) -> None:
    async with run_runtime() as runtime:
        answer = await runtime.execute(command)

    assert answer["exit_code"] == 1
    assert answer["stderr"].startswith("Failed to execute command: ")
    assert words in answer["stderr"]
    assert not answer.get("started")


async def test_working_directory_variables_and_input_can_be_given(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        (daemon.root / "sub").mkdir()
        answer = await daemon.execute(
            ["sh", "-c", "pwd; echo $NAME; cat"], cwd="sub", env={"NAME": "ä"}, stdin="in\n" * 50000
        )

    assert answer["stdout"] == f"{daemon.root}/sub\nä\n" + "in\n" * 50000


async def test_missing_working_directory_is_told_in_band(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        answer = await daemon.execute("true", cwd="missing")

    assert answer["exit_code"] == 1
    assert "missing" in answer["stderr"]


async def test_signal_is_a_negative_exit_code(run_runtime: Any) -> None:
    async with run_runtime() as runtime:
        assert (await runtime.execute(["sh", "-c", "kill -TERM $$"]))["exit_code"] == -15


async def test_timeout_kills_the_whole_group_and_keeps_what_came(run_daemon: Any, tmp_path: Path) -> None:
    script = f"sh -c 'echo $$ > {tmp_path}/child; exec sleep 1000' & echo partial; wait"
    async with run_daemon() as daemon:
        answer = await daemon.execute(["sh", "-c", script], timeout=1.5)

        assert answer["timed_out"]
        assert answer["exit_code"] == -9
        assert answer["stdout"] == "partial\n"
        assert await gone(await pid_in(tmp_path / "child"))


async def test_command_that_takes_too_long_is_killed_with_what_it_started(run_runtime: Any, tmp_path: Path) -> None:
    script = f"sh -c 'echo $$ > {tmp_path}/child; exec sleep 1000' & wait"
    async with run_runtime() as runtime:
        answer = await runtime.execute(["sh", "-c", script], timeout=1.5)

        assert answer["exit_code"] == -9
        assert await gone(await pid_in(tmp_path / "child"))


async def test_output_beyond_the_limit_is_counted_out(run_daemon: Any) -> None:
    async with run_daemon(max_output_bytes=1000) as daemon:
        answer = await daemon.execute(
            ["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; head -c 1000 /dev/zero >&2"]
        )

    assert len(answer["stdout"]) == 1000
    assert answer["stdout_truncated"]
    assert len(answer["stderr"]) == 1000
    assert not answer["stderr_truncated"]
    assert answer["exit_code"] == 0


async def test_binary_output_survives_as_base64_and_is_replaced_in_text(run_daemon: Any) -> None:
    command = ["printf", r"\377\000a"]
    async with run_daemon() as daemon:
        exact = await daemon.execute(command, encoding="base64")
        text = await daemon.execute(command)

    assert base64.b64decode(exact["stdout"]) == b"\xff\x00a"
    assert text["stdout"] == "\ufffd\x00a"


async def test_background_child_that_holds_the_pipes_does_not_hold_the_answer(run_daemon: Any, tmp_path: Path) -> None:
    script = f"(echo $PPID; echo $$ > {tmp_path}/p; exec sleep 1000) & echo started"
    async with run_daemon() as daemon:
        with anyio.fail_after(60):
            answer = await daemon.execute(["sh", "-c", script])

        assert "started\n" in answer["stdout"]
        assert answer["exit_code"] == 0
    await daemon_cleanup(tmp_path)


async def daemon_cleanup(directory: Path) -> None:
    """End the background process of the test above: it belongs to the group of its ended leader."""
    os.killpg(await pid_in(directory / "p"), 9)


async def test_client_that_goes_away_takes_its_command_with_it(run_daemon: Any, tmp_path: Path) -> None:
    async with run_daemon() as daemon:
        body = f'{{"command": ["sh", "-c", "echo $$ > {tmp_path}/pid; exec sleep 1000"]}}'.encode()
        async with await anyio.connect_tcp("127.0.0.1", daemon.port) as stream:
            await stream.send(
                b"POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            pid = await pid_in(tmp_path / "pid")

        assert await gone(pid)


async def test_command_may_outlive_its_client_and_is_run_once(run_daemon: Any, tmp_path: Path) -> None:
    """The client loses its connection and asks again with the same operation identifier: at most once."""
    os.mkfifo(tmp_path / "gate")
    command = ["sh", "-c", f"echo run >> {tmp_path}/runs; echo $$ > {tmp_path}/pid; cat {tmp_path}/gate; echo done"]
    more = {"operation_id": "op-1", "on_disconnect": "continue"}
    async with run_daemon() as daemon:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: daemon.execute(command, **more))
            await pid_in(tmp_path / "pid")
            tasks.cancel_scope.cancel()
        answers: list[dict[str, Any]] = []

        async def ask_again() -> None:
            answers.append(await daemon.execute(command, **more))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask_again)
            tasks.start_soon(ask_again)
            await anyio.to_thread.run_sync((tmp_path / "gate").write_text, "through\n")
        answers.append(await daemon.execute(command, **more))

    assert [answer["stdout"] for answer in answers] == ["through\ndone\n"] * 3
    assert (tmp_path / "runs").read_text() == "run\n"


async def test_output_kept_for_repetitions_is_bounded_and_a_command_without_its_output_does_not_run_again(
    run_daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "REMEMBERED_OUTPUT", 1500)
    command = "sh -c 'echo x >> ran; head -c 1000 /dev/zero'"
    async with run_daemon() as daemon:
        for name in ("first", "second"):
            assert len((await daemon.execute(command, operation_id=name))["stdout"]) == 1000
        request = {"command": command, "operation_id": "first"}
        async with daemon.session.post(daemon.url + "/execute", json=request) as response:
            assert response.status == 422
            assert "dropped" in (await response.json())["detail"]
        assert len((await daemon.execute(command, operation_id="second"))["stdout"]) == 1000
        assert (daemon.root / "ran").read_text() == "x\nx\n"


async def test_operation_identifier_of_another_command_is_refused(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        await daemon.execute("true", operation_id="x")
        async with daemon.session.post(
            daemon.url + "/execute", json={"command": "false", "operation_id": "x"}
        ) as response:
            assert response.status == 422
            assert "own identifier" in (await response.json())["detail"]


async def test_one_command_more_than_allowed_is_refused_in_band(run_daemon: Any, tmp_path: Path) -> None:
    async with run_daemon(max_processes=1) as daemon, anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: daemon.execute(["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 1000"]))
        await pid_in(tmp_path / "pid")

        answer = await daemon.execute("true")

        assert "1 commands run" in answer["stderr"]
        tasks.cancel_scope.cancel()


async def test_hundred_commands_run_side_by_side(run_runtime: Any) -> None:
    answers: list[str] = []

    async with run_runtime() as runtime:

        async def one(number: int) -> None:
            answers.append((await runtime.execute(["echo", str(number)]))["stdout"])

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(one, number)

    assert sorted(answers) == sorted(f"{number}\n" for number in range(100))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"{",
        b'{"command": 1}',
        b'{"command": ["a", 1]}',
        b'{"command": "true", "timeout": 0}',
        b'{"command": "true", "timeout": "1"}',
        b'{"command": "true", "timeout": NaN}',
        b'{"command": "true", "env": {"A=B": "c"}}',
        b'{"command": "true", "env": ["A"]}',
        b'{"command": "true", "encoding": "latin-1"}',
        b'{"command": "true", "operation_id": ""}',
        b'{"command": "tr\\u0000ue"}',
        b"[" * 100000,
    ],
)
async def test_body_that_makes_no_sense_is_422_with_the_reason(run_daemon: Any, body: bytes) -> None:
    async with run_daemon() as daemon, daemon.session.post(daemon.url + "/execute", data=body) as response:
        assert response.status == 422
        assert (await response.json())["detail"]


async def test_daemons_own_variables_do_not_reach_commands(run_daemon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/daemon")
    monkeypatch.setenv("SANDBOXD_X", "1")
    monkeypatch.setenv("OF_THE_POD", "yes")
    async with run_daemon() as daemon:
        answer = await daemon.execute("env")

    assert "OF_THE_POD=yes" in answer["stdout"]
    assert "PYTHONPATH" not in answer["stdout"]
    assert "SANDBOXD" not in answer["stdout"]


async def test_token_guards_everything_but_the_probes(run_daemon: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    async with run_daemon(token_file=tmp_path / "token") as daemon:
        statuses = []
        for path, token in (("/", ""), ("/healthz", ""), ("/list/", ""), ("/list/", "wrong"), ("/list/", "s3cret")):
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            async with daemon.session.get(daemon.url + path, headers=headers) as response:
                statuses.append(response.status)

    assert statuses == [200, 200, 401, 401, 200]


@pytest.mark.parametrize(
    "header",
    [
        "Origin: http://evil.example",
        "Origin: null",
        "Origin: http://localhost:1",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        "Host: evil.example",
        "Host: evil.example\r\nX-Forwarded-For: 127.0.0.1",
    ],
)
@pytest.mark.parametrize("upgrade", [False, True])
async def test_a_strangers_page_runs_nothing(run_daemon: Any, header: str, upgrade: bool) -> None:
    """Neither by a form, whose body may be JSON all the same, nor by a WebSocket, nor under a rebound name."""
    body = b'{"command": "touch entered"}'
    async with run_daemon() as daemon:
        head = f"{header}\r\n" if header.startswith("Host") else f"Host: localhost:{daemon.port}\r\n{header}\r\n"
        form = f"POST /execute HTTP/1.1\r\n{head}Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
        socket = (
            f"GET /v1/watch HTTP/1.1\r\n{head}Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        )
        connection = "Connection: Upgrade, close\r\n\r\n" if upgrade else "Connection: close\r\n\r\n"
        with anyio.fail_after(60):
            answer = await daemon.raw((socket if upgrade else form).encode() + connection.encode() + body)

        assert answer.startswith(b"HTTP/1.1 403 ")
        assert not (daemon.root / "entered").exists()


async def test_a_page_of_the_daemons_own_origin_and_one_behind_a_proxy_are_served(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        for headers in (
            {"Origin": daemon.url, "Sec-Fetch-Site": "same-origin"},
            {"Origin": "https://agents.example", "Sec-Fetch-Site": "cross-site", "X-Forwarded-For": "10.0.0.1"},
        ):
            async with daemon.session.get(daemon.url + "/list/", headers=headers) as response:
                assert response.status == 200


async def test_a_token_of_any_bytes_is_a_wrong_one(run_daemon: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    async with run_daemon(token_file=tmp_path / "token") as daemon:
        head = b"GET /list/ HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\xfe\r\n"
        assert (await daemon.raw(head + b"Connection: close\r\n\r\n")).startswith(b"HTTP/1.1 401 ")


async def test_stopping_ends_commands_and_answers_their_clients(run_daemon: Any, tmp_path: Path) -> None:
    command = ["sh", "-c", f"trap 'echo bye; exit 7' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.05; done"]
    answers: list[dict[str, Any]] = []
    async with run_daemon(shutdown_grace=5) as daemon:

        async def run() -> None:
            with anyio.CancelScope(shield=True):
                answers.append(await daemon.execute(command))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await pid_in(tmp_path / "pid")
            daemon.tasks.cancel_scope.cancel()

    assert answers[0]["stdout"] == "bye\n"
    assert answers[0]["exit_code"] == 7


async def test_commands_end_also_where_the_kernel_has_no_pidfds(
    run_daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(pid: int, flags: int = 0) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", missing)
    async with run_daemon() as daemon:
        answers = [await daemon.execute(["sh", "-c", f"exit {code}"]) for code in range(5)]

    assert [answer["exit_code"] for answer in answers] == [0, 1, 2, 3, 4]
