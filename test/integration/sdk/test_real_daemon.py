"""Commands, files and ports against the real daemon, through the asynchronous and the synchronous classes."""

import hashlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from agent_sandbox.sdk import (
    AsyncSandboxClient,
    CommandTimeoutError,
    FileEvent,
    SandboxClient,
    SandboxFileNotFoundError,
    SandboxGoneError,
    SandboxPermissionError,
    SandboxProcessNotFoundError,
    SandboxRequestError,
    SearchMatch,
    Terminal,
)
from agent_sandbox.testing.pretend_cluster import PretendCluster


@asynccontextmanager
async def opened(cluster: PretendCluster) -> AsyncIterator[AsyncSandboxClient]:
    """A sandbox with the real daemon in it."""
    async with AsyncSandboxClient("python", kube=cluster.kube, api_url=cluster.api_url) as sandbox:
        yield sandbox


async def has_ended(pid: str) -> bool:
    """Whether a process has ended; one that nobody has reaped yet has."""
    try:
        stat = await anyio.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in {"Z", "X"}


async def gone(pid: str) -> None:
    """Wait until a process has ended: nothing tells of the end of somebody else's child."""
    with anyio.fail_after(60):
        while not await has_ended(pid):  # noqa: ASYNC110
            await anyio.sleep(0.01)


async def test_shell_environment_directory_and_input_reach_the_command(cluster: PretendCluster) -> None:
    async with opened(cluster) as sandbox:
        await sandbox.files.mkdir("d")
        result = await sandbox.commands.run(
            "pwd; echo $A; cat; echo no >&2; exit 7", env={"A": "x"}, cwd="d", stdin="in"
        )

    assert result.stdout == f"{cluster.workspace}/d\nx\nin"
    assert result.stderr == "no\n"
    assert result.exit_code == 7
    assert result.duration is not None


async def test_arguments_are_not_touched_by_a_shell(cluster: PretendCluster) -> None:
    async with opened(cluster) as sandbox:
        result = await sandbox.commands.run(["printf", "%s|", "$A", "a b", "*", ";"])

    assert result.stdout == "$A|a b|*|;|"


async def test_output_streams_while_the_command_runs(cluster: PretendCluster) -> None:
    async with opened(cluster) as sandbox:
        process = await sandbox.commands.start("echo one; read x; echo $x", stdin=True)
        first = await anext(process)
        await process.send_stdin("two\n")
        second = await anext(process)
        result = await process.wait()

    assert (first.text, second.text) == ("one\n", "two\n")
    assert result.exit_code == 0


async def test_a_timeout_kills_the_whole_group_and_keeps_the_output(cluster: PretendCluster) -> None:
    async with opened(cluster) as sandbox:
        with pytest.raises(CommandTimeoutError) as caught:
            await sandbox.commands.run("echo $$; sleep 60 & echo $!; wait", timeout=1.5)

    assert caught.value.killed
    pids = caught.value.stdout.split()
    assert len(pids) == 2
    for pid in pids:
        await gone(pid)


async def test_a_cancelled_run_leaves_no_process(cluster: PretendCluster) -> None:
    pids: list[str] = []
    async with opened(cluster) as sandbox, anyio.create_task_group() as tasks:

        def take(text: str) -> None:
            pids.append(text)
            tasks.cancel_scope.cancel()

        await sandbox.commands.run("echo $$; exec sleep 60", on_stdout=take)
    await gone(pids[0].strip())


async def test_a_process_outlives_its_client_and_is_found_again(cluster: PretendCluster) -> None:
    async with opened(cluster) as sandbox:
        process = await sandbox.commands.start("echo before; read x; echo after $x; exit 5", stdin=True)
        assert (await anext(process)).text == "before\n"
        await process.detach()
        again = await sandbox.commands.connect(process.id)
        await again.send_stdin("now\n")
        output = "".join([piece.text async for piece in again])
        late = await sandbox.commands.connect(process.id, after=1)

        assert output == "before\nafter now\n"
        assert [piece.text async for piece in late] == ["after now\n"]
        assert again.info.exit_code == 5
        assert process.id in [info.id for info in await sandbox.commands.list()]


async def test_signals_reach_the_process_and_the_dead_take_none(cluster: PretendCluster) -> None:
    async with opened(cluster) as sandbox:
        process = await sandbox.commands.start(["sleep", "60"])
        await process.signal("SIGTERM")
        result = await process.wait()

        assert result.exit_code == -signal.SIGTERM
        await process.kill()
        with pytest.raises(SandboxProcessNotFoundError):
            await process.send_stdin("x")
        with pytest.raises(SandboxProcessNotFoundError):
            await sandbox.commands.connect("no-such-process")


async def test_a_terminal_has_a_size_that_changes(cluster: PretendCluster) -> None:
    async with opened(cluster) as sandbox:
        process = await sandbox.commands.start("stty size; read x; stty size", terminal=Terminal(100, 30))
        first = (await anext(process)).text
        await process.resize(120, 40)
        await process.send_stdin("\n")
        rest = "".join([piece.text async for piece in process])

    assert "30 100" in first
    assert "40 120" in rest


async def test_megabytes_of_input_and_output_arrive_whole(cluster: PretendCluster) -> None:
    data = os.urandom(6 * 2**20)
    async with opened(cluster) as sandbox:
        result = await sandbox.commands.run(["cat"], stdin=data)

    assert hashlib.sha256(result.stdout_bytes).digest() == hashlib.sha256(data).digest()
    assert not result.stdout_truncated


async def test_a_command_that_answers_more_input_than_all_buffers_hold_does_not_stand_still(
    cluster: PretendCluster,
) -> None:
    data = bytes(36 * 2**20)
    async with opened(cluster) as sandbox:
        with anyio.fail_after(60):
            result = await sandbox.commands.run(["cat"], stdin=data, max_output=len(data))

    assert len(result.stdout_bytes) == len(data)
    assert not result.stdout_truncated


async def test_a_stream_opened_again_to_a_command_that_has_ended_gets_its_end_not_its_input(
    cluster: PretendCluster,
) -> None:
    async with opened(cluster) as sandbox:
        process = await sandbox.commands.start("head -c 9; exit 7", stdin=True)
        await process.send_stdin(bytes(4_100_000))  # below the window: nothing of it is confirmed
        while (await sandbox.commands.list())[0].state == "running":  # noqa: ASYNC110 - nothing tells a handle that does not read
            await anyio.sleep(0.01)
        await process.detach()
        with anyio.fail_after(60):
            result = await process.wait()

    assert result.stdout_bytes == bytes(9)
    assert result.exit_code == 7


async def test_a_handle_that_was_found_again_types_behind_what_others_typed(cluster: PretendCluster) -> None:
    async with opened(cluster) as sandbox:
        first = await sandbox.commands.start("while read x; do echo got $x; done", stdin=True)
        await first.send_stdin("one\n")
        assert (await anext(first)).text == "got one\n"
        second = await sandbox.commands.connect(first.id, after=1)
        await second.send_stdin("two\n")
        assert (await anext(second)).text == "got two\n"
        await first.send_stdin("three\n")
        await second.close_stdin()
        text = "".join([piece.text async for piece in second])

    assert text == "got three\n"


async def test_endless_output_is_cut_at_the_cap_and_memory_stays_flat(cluster: PretendCluster) -> None:
    async with opened(cluster) as sandbox:
        result = await sandbox.commands.run("head -c 50000000 /dev/zero", max_output=1000)

    assert len(result.stdout_bytes) == 1000
    assert result.stdout_truncated


async def test_what_does_not_exist_is_not_found_and_what_is_outside_is_refused(cluster: PretendCluster) -> None:
    async with opened(cluster) as sandbox:
        assert (await sandbox.commands.run(["no-such-program"])).exit_code != 0
        with pytest.raises(SandboxFileNotFoundError):
            await sandbox.files.stat("nope")
        with pytest.raises(SandboxPermissionError):
            await sandbox.files.stat("/etc/passwd")
        with pytest.raises(SandboxPermissionError):
            await sandbox.files.write("/etc/passwd", "x")


async def test_files_are_written_listed_moved_and_removed(cluster: PretendCluster) -> None:
    async with opened(cluster) as sandbox:
        files = sandbox.files
        await files.write("d/grüße %41.txt", "hello", mode="0755")
        (entry,) = await files.list("d")
        await files.rename("d/grüße %41.txt", "d/b")
        await files.chmod("d/b", "0600")
        moved = await files.stat("d/b")

        assert (entry.name, entry.size, entry.mode, entry.type) == ("grüße %41.txt", 5, "0755", "file")
        assert moved.mode == "0600"
        assert await files.read_text("d/b") == "hello"
        assert await files.exists("d")
        with pytest.raises(SandboxRequestError):
            await files.remove("d")
        await files.remove("d", recursive=True)
        assert not await files.exists("d")
        await files.write("e", "")
        with pytest.raises(SandboxRequestError, match="directory"):
            await files.list("e")


@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9.txt"), "two\nlines"])
async def test_every_name_that_linux_allows_can_be_worked_with(
    cluster: PretendCluster, tmp_path: Path, name: str
) -> None:
    """Programs in a sandbox make such names; one of them must not spoil a whole tree."""
    (cluster.workspace / "d").mkdir()
    (cluster.workspace / "d" / name).write_text("found")
    path = f"d/{name}"
    async with opened(cluster) as sandbox:
        files = sandbox.files
        assert [entry.name for entry in await files.list("d")] == [name]
        assert (await files.stat(path)).size == 5
        assert await sandbox.read(path) == await files.read(path) == b"found"
        assert (await files.get("d", tmp_path / "got")).files == 1
        assert (await files.sync(tmp_path / "synced", "d")).downloaded == (name,)
        await files.upload(b"sent", path)
        assert (await files.put(tmp_path / "got", "put")).files == 1
        assert [match.path for match in await files.search("put", name="*")] == [name]
        await files.rename(path, f"{path}2")
        await files.remove(f"{path}2")
        await files.write(path, "again")

    assert (tmp_path / "got" / name).read_text() == (tmp_path / "synced" / name).read_text() == "found"
    assert (cluster.workspace / "put" / name).read_text() == "found"
    assert [(file.name, file.read_text()) for file in (cluster.workspace / "d").iterdir()] == [(name, "again")]


async def test_large_files_go_up_and_down_with_their_checksum(cluster: PretendCluster, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(20 * 2**20 + 17))
    source.chmod(0o640)
    progress: list[int] = []
    async with opened(cluster) as sandbox:
        await sandbox.files.upload(source, "big", on_progress=progress.append)
        size = await sandbox.files.download("big", target)
        tail = b"".join([piece async for piece in sandbox.files.stream("big", start=20 * 2**20)])
        mode = (await sandbox.files.stat("big")).mode

    assert size == source.stat().st_size == progress[-1]
    assert target.read_bytes() == source.read_bytes()
    assert tail == source.read_bytes()[20 * 2**20 :]
    assert mode == "0640"


async def test_names_and_lines_are_found_in_the_sandbox(cluster: PretendCluster) -> None:
    async with opened(cluster) as sandbox:
        await sandbox.files.write("a/x.py", "one\ntwo\n")
        await sandbox.files.write("a/y.txt", "two\n")
        names = await sandbox.files.search("a", name="*.py")
        lines = await sandbox.files.search(".", name="*.py", content="t.o")
        with pytest.raises(SandboxRequestError, match="regular expression"):
            await sandbox.files.search(".", content="(")

    assert [match.path.rpartition("/")[2] for match in names] == ["x.py"]
    assert [(match.line, match.text) for match in lines] == [(2, "two")]
    assert all(isinstance(match, SearchMatch) for match in lines)


async def test_changes_are_told_as_they_happen(cluster: PretendCluster) -> None:
    seen: list[FileEvent] = []
    async with opened(cluster) as sandbox, anyio.create_task_group() as tasks:

        async def write() -> None:
            for number in range(1000):  # nobody tells when the daemon has begun to look
                await sandbox.files.write(f"new-{number}.txt", "x")
                await anyio.sleep(0.02)

        tasks.start_soon(write)
        with anyio.fail_after(60):
            async with aclosing(sandbox.files.watch(".")) as events:
                async for event in events:
                    seen.append(event)
                    if event.path.startswith("new-"):
                        break
        tasks.cancel_scope.cancel()

    assert FileEvent("created", seen[-1].path) in seen


async def test_ports_are_listed_and_waited_for(cluster: PretendCluster) -> None:
    async with opened(cluster) as sandbox:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        async with listener:
            port = int(listener.extra(anyio.abc.SocketAttribute.local_port))
            await sandbox.ports.wait(port, timeout=60)

            assert port in await sandbox.ports.list()
        with pytest.raises(TimeoutError, match=f"port {port}"):
            await sandbox.ports.wait(port, timeout=0.3)


def test_the_synchronous_classes_stream_and_call_back_in_the_callers_thread(sync_cluster: PretendCluster) -> None:
    import threading

    threads: set[str] = set()
    pieces: list[str] = []

    def take(text: str) -> None:
        threads.add(threading.current_thread().name)
        pieces.append(text)

    with SandboxClient("python", kube=sync_cluster.kube, api_url=sync_cluster.api_url) as sandbox:
        result = sandbox.commands.run("echo one; echo two", on_stdout=take)
        process = sandbox.commands.start("echo a; echo b")
        text = "".join(piece.text for piece in process)
        sandbox.files.write("f", b"12345")
        streamed = b"".join(sandbox.files.stream("f", start=2))
        names = [entry.name for entry in sandbox.files.list()]

    assert result.stdout == "".join(pieces) == "one\ntwo\n"
    assert threads == {threading.main_thread().name}
    assert text == "a\nb\n"
    assert streamed == b"345"
    assert names == ["f"]


def test_an_error_in_a_callback_reaches_the_caller_and_kills_the_command(sync_cluster: PretendCluster) -> None:
    def fail(text: str) -> None:
        raise ZeroDivisionError(text)

    with (
        SandboxClient("python", kube=sync_cluster.kube, api_url=sync_cluster.api_url) as sandbox,
        pytest.raises(ZeroDivisionError, match="one"),
    ):
        sandbox.commands.run("echo one; exec sleep 60", on_stdout=fail)


async def test_a_command_that_ends_with_its_sandbox_is_told_from_one_that_was_killed(cluster: PretendCluster) -> None:
    async with opened(cluster) as sandbox:
        own = await sandbox.commands.run("kill -TERM $$")
        handle = sandbox.sandbox
        process = await sandbox.commands.start("echo begun; exec sleep 60")
        while not (await process.refresh()).last_sequence:
            await anyio.lowlevel.checkpoint()
        await handle.delete()
        await process.signal("SIGTERM")  # as the daemon does when its Pod is stopped
        with pytest.raises(SandboxGoneError, match="ended with its sandbox") as caught:
            await process.wait()
        with pytest.raises(SandboxGoneError):
            await sandbox.run("sh -c 'kill -TERM $$'")

    assert own.exit_code == -signal.SIGTERM
    assert caught.value.stdout == "begun\n"
