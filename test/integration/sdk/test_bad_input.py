"""Everything bad that a user, a cluster or a machine can do to a client: each ends in its own error, nothing is lost.

Where the daemon is killed, starved or measured, it is a process of its own, as in a Pod.
"""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from agent_sandbox.clock import SystemClock
from agent_sandbox.local.apiserver.site import ApiServerSite
from agent_sandbox.sdk import (
    AsyncComputerUseExtension,
    AsyncSandboxClient,
    CommandTimeoutError,
    SandboxConfigError,
    SandboxDiskFullError,
    SandboxError,
    SandboxFileNotFoundError,
    SandboxGoneError,
    SandboxOutcomeUnknownError,
    SandboxPermissionError,
    SandboxTemplateNotFoundError,
    UnsupportedByRuntimeError,
    connection,
    lifetime,
)
from agent_sandbox.testing.pretend_cluster import PretendCluster
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS

MIB = 1024 * 1024
SMALL_DISK = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
OWN_PROCESSES = ["unshare", "--user", "--map-root-user", "--pid", "--mount-proc", "--kill-child"]
"""As in a Pod, the daemon's end is the end of its commands: nothing is left of a test that kills it."""


def may_mount() -> bool:
    """Whether this machine lets us make a file system of our own."""
    try:
        done = subprocess.run([*SMALL_DISK, "mount -t tmpfs none /mnt"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0


needs_namespaces = pytest.mark.skipif(not may_mount(), reason="this machine allows no user namespace of our own")


@dataclass(frozen=True)
class DaemonProcess:
    """The daemon as a process of its own."""

    process: anyio.abc.Process
    url: str
    root: Path

    def kill(self) -> None:
        """As the kernel does when memory runs out."""
        os.kill(self.process.pid, signal.SIGKILL)

    def peak_memory(self) -> int:
        """The most bytes that were ever resident."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024


@asynccontextmanager
async def daemon_process(root: Path, prefix: Sequence[str] = ()) -> AsyncIterator[DaemonProcess]:
    """Start a daemon; `prefix` is a command that runs it."""
    command = [*prefix, sys.executable, "-m", "agent_sandbox.sandboxd", "--root", str(root), "--port", "0"]
    async with await anyio.open_process(command, stdout=None, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = b""
        with anyio.fail_after(60):
            while b" serves " not in said or not said.endswith(b"\n"):
                said += await process.stderr.receive()
        port = int(said.split(b"127.0.0.1:")[1].split()[0])
        try:
            yield DaemonProcess(process, f"http://127.0.0.1:{port}", root)
        finally:
            if process.returncode is None:
                process.kill()


@asynccontextmanager
async def sandbox_in(cluster: PretendCluster, daemon: DaemonProcess | None = None) -> AsyncIterator[AsyncSandboxClient]:
    """A sandbox that this daemon serves, or the one in this process."""
    url = cluster.api_url if daemon is None else daemon.url
    async with AsyncSandboxClient("python", kube=cluster.kube, api_url=url) as sandbox:
        yield sandbox


async def test_a_missing_template_is_named_at_once_and_no_claim_stays(cluster: PretendCluster) -> None:
    cluster.answer = lambda _: {"status": "False", "reason": "TemplateNotFound", "message": "no template 'nope'"}
    with anyio.fail_after(60), pytest.raises(SandboxTemplateNotFoundError, match="nope"):
        await AsyncSandboxClient("nope", kube=cluster.kube, api_url=cluster.api_url).__aenter__()

    assert await cluster.claim_names() == []


async def test_a_wrong_context_is_a_configuration_error_that_names_it(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text("apiVersion: v1\nkind: Config\ncontexts: []\nclusters: []\nusers: []\n")
    with pytest.raises(SandboxConfigError, match="prod-eu"):
        await AsyncSandboxClient("python", kubeconfig=kubeconfig, context="prod-eu").__aenter__()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "tunel"}, "there is no mode 'tunel'; there are auto, local, direct"),
        ({"server_port": 0}, "server_port is 0"),
        ({"server_port": 70000}, "server_port is 70000"),
    ],
)
async def test_a_client_that_could_never_work_is_refused_before_anything_is_made(
    cluster: PretendCluster, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(SandboxConfigError, match=words):
        await AsyncSandboxClient("python", kube=cluster.kube, api_url=cluster.api_url, **options).__aenter__()

    assert await cluster.claim_names() == []


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
async def test_a_timeout_that_is_none_is_refused_and_nothing_runs(cluster: PretendCluster, timeout: float) -> None:
    async with sandbox_in(cluster) as sandbox:
        for call in (
            lambda: sandbox.run("touch ran", timeout=timeout),
            lambda: sandbox.write("ran", "", timeout=timeout),
            lambda: sandbox.read("ran", timeout=timeout),
        ):
            with pytest.raises(ValueError, match="a timeout is a positive number of seconds"):
                await call()

        assert await sandbox.files.list() == []


async def test_what_is_no_content_a_port_or_a_validity_is_refused(cluster: PretendCluster) -> None:
    async with sandbox_in(cluster) as sandbox:
        with pytest.raises(TypeError):
            await sandbox.write("seven-null-bytes", 7)  # type: ignore[arg-type]
        for port in (0, 65536):
            with pytest.raises(ValueError, match=f"there is no port {port}"):
                await sandbox.ports.wait(port)
            with pytest.raises(ValueError, match=f"there is no port {port}"):
                await sandbox.ports.signed_url(port)
        with pytest.raises(ValueError, match="positive number of seconds"):
            await sandbox.ports.signed_url(80, seconds=-1)

        assert await sandbox.files.list() == []


async def test_a_port_without_that_part_of_the_runtime_says_so(cluster: PretendCluster) -> None:
    """Our daemon has no agent; a program of the user's, behind a wrong server_port, has no /execute either."""
    async with AsyncComputerUseExtension("python", kube=cluster.kube, api_url=cluster.api_url) as sandbox:
        with pytest.raises(UnsupportedByRuntimeError, match="has no /agent: another program, or an image without"):
            await sandbox.agent("book a flight")


async def test_a_sandbox_deleted_under_a_running_command_is_gone_with_the_output_until_then(
    cluster: PretendCluster, tmp_path: Path
) -> None:
    async with daemon_process(tmp_path / "root") as daemon, sandbox_in(cluster, daemon) as sandbox:
        process = await sandbox.commands.start("echo begun; exec sleep 1000")
        assert (await anext(process)).text == "begun\n"
        await sandbox.sandbox.delete()
        daemon.process.terminate()  # as the kubelet does
        with anyio.fail_after(60), pytest.raises(SandboxGoneError, match="ended with its sandbox"):
            await process.wait()


async def run_until_killed(sandbox: AsyncSandboxClient, daemon: DaemonProcess, expected: type[SandboxError]) -> None:
    """Run a command by the legacy contract, kill the daemon under it, and see what the call raises."""

    async def run() -> None:
        with anyio.fail_after(60), pytest.raises(expected):
            await sandbox.run("sh -c 'echo >> runs; exec sleep 1000'")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        with anyio.fail_after(60):
            while not await anyio.Path(daemon.root / "runs").exists():
                await anyio.lowlevel.checkpoint()
        daemon.kill()
    assert await anyio.Path(daemon.root / "runs").read_text() == "\n"


@needs_namespaces
async def test_a_sandbox_deleted_under_a_legacy_run_is_gone_however_the_connection_ended(
    cluster: PretendCluster, tmp_path: Path
) -> None:
    async with daemon_process(tmp_path / "root", OWN_PROCESSES) as daemon, sandbox_in(cluster, daemon) as sandbox:
        await sandbox.sandbox.delete()
        await run_until_killed(sandbox, daemon, SandboxGoneError)


@needs_namespaces
async def test_a_daemon_killed_under_a_legacy_run_leaves_the_outcome_unknown_and_is_not_asked_again(
    cluster: PretendCluster, tmp_path: Path
) -> None:
    async with daemon_process(tmp_path / "root", OWN_PROCESSES) as daemon, sandbox_in(cluster, daemon) as sandbox:
        await run_until_killed(sandbox, daemon, SandboxOutcomeUnknownError)


@needs_namespaces
@pytest.mark.slow
async def test_a_killed_daemon_ends_a_stream_and_is_not_waited_for(cluster: PretendCluster, tmp_path: Path) -> None:
    async with daemon_process(tmp_path / "root", OWN_PROCESSES) as daemon, sandbox_in(cluster, daemon) as sandbox:
        process = await sandbox.commands.start("echo begun; exec sleep 1000")
        assert (await anext(process)).text == "begun\n"
        daemon.kill()
        with anyio.fail_after(60), pytest.raises(SandboxGoneError, match="died"):
            await process.wait()


@pytest.mark.node
@needs_namespaces
async def test_a_full_disk_is_its_own_error_keeps_the_old_file_and_is_cured_by_removing(
    cluster: PretendCluster, tmp_path: Path
) -> None:
    root, big = tmp_path / "root", bytes(12 * MIB)
    root.mkdir()
    prefix = [*SMALL_DISK, f'mount -t tmpfs -o size=8m none {root} && exec "$@"', "sh"]
    async with daemon_process(root, prefix) as daemon, sandbox_in(cluster, daemon) as sandbox:
        await sandbox.files.write("kept", "old")
        for write in (
            lambda: sandbox.write("kept", big),
            lambda: sandbox.files.write("kept", big),
            lambda: sandbox.files.upload(big, "kept"),
        ):
            with pytest.raises(SandboxDiskFullError, match="no space left"):
                await write()
        by_command = await sandbox.commands.run("head -c 12000000 /dev/zero > filled")
        with pytest.raises(SandboxDiskFullError):
            await sandbox.files.write("more", bytes(MIB))
        kept = await sandbox.read("kept")
        names = [entry.name for entry in await sandbox.files.list()]
        await sandbox.files.remove("filled")
        await sandbox.files.upload(bytes(5 * MIB), "more")

    assert by_command.exit_code != 0
    assert "No space left" in by_command.stderr
    assert kept == b"old"
    assert names == ["filled", "kept"]


@pytest.mark.slow
@pytest.mark.timeout(240)  # half a minute on a quiet machine
async def test_two_gigabytes_of_output_pass_through_bounded_memory(cluster: PretendCluster, tmp_path: Path) -> None:
    size, seen = 2 * 2**30, 0

    def count(text: str) -> None:
        nonlocal seen
        seen += len(text)

    async with daemon_process(tmp_path / "root") as daemon, sandbox_in(cluster, daemon) as sandbox:
        before = daemon.peak_memory(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        result = await sandbox.commands.run(f"head -c {size} /dev/zero", timeout=None, on_stdout=count)
        after = daemon.peak_memory(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    assert seen == size
    assert (result.exit_code, result.stdout_truncated, len(result.stdout_bytes)) == (0, True, 10 * MIB)
    assert after[0] - before[0] < 64 * MIB
    assert after[1] - before[1] < 96 * MIB


async def test_endless_output_of_a_command_is_stopped_by_its_timeout_with_what_fits(
    cluster: PretendCluster,
) -> None:
    async with sandbox_in(cluster) as sandbox:
        with pytest.raises(CommandTimeoutError) as legacy:
            await sandbox.run("yes", timeout=1)
        with pytest.raises(CommandTimeoutError) as streamed:
            await sandbox.commands.run(["yes"], timeout=1, max_output=1000)

    assert legacy.value.stdout.startswith("y\ny\n")
    assert len(legacy.value.stdout) <= 10 * MIB
    assert len(streamed.value.stdout) == 1000


async def test_binary_output_arrives_byte_for_byte(cluster: PretendCluster) -> None:
    every_byte = bytes(range(256)) * 100
    async with sandbox_in(cluster) as sandbox:
        await sandbox.write("binary", every_byte)
        by_run = await sandbox.run("cat binary")
        streamed = await sandbox.commands.run(["cat", "binary"])
        on_stderr = await sandbox.commands.run("cat binary >&2")

    assert by_run.stdout_bytes == streamed.stdout_bytes == on_stderr.stderr_bytes == every_byte
    assert "\ufffd" in streamed.stdout


async def test_a_path_outside_the_root_is_refused_by_every_method(cluster: PretendCluster, tmp_path: Path) -> None:
    async with sandbox_in(cluster) as sandbox:
        await sandbox.files.mkdir("a")
        (cluster.workspace / "link").symlink_to("/etc/passwd")
        files = sandbox.files
        for path in ("/etc/passwd", "../../etc/passwd", "link", "a/../../x"):
            for touch in (
                sandbox.read(path),
                sandbox.write(path, "x"),
                files.write(path, "x"),
                files.upload(b"x", path),
                files.download(path, tmp_path / "here"),
                files.chmod(path, "0777"),
                files.list(path),
            ):
                with pytest.raises(SandboxPermissionError):
                    await touch

    assert not (tmp_path / "here").exists()


async def test_a_name_of_any_characters_is_one_and_the_same_file_for_all_methods(
    cluster: PretendCluster, tmp_path: Path
) -> None:
    async with sandbox_in(cluster) as sandbox:
        for name in ("grüße.txt", "名前/データ.bin", "e\u0301", "🙂", "a%2Fb?c#d&e=f", '"quoted" \\', " "):
            await sandbox.write(name, "1")
            assert (cluster.workspace / name).read_text() == "1"
            await sandbox.files.write(name, "2")
            await sandbox.files.upload(b"3", name)
            assert await sandbox.read(name) == b"3"
            await sandbox.files.download(name, tmp_path / "here")
            assert (await sandbox.commands.run(["cat", name])).stdout == "3"
            assert Path(name).name in [entry.name for entry in await sandbox.files.list(str(Path(name).parent))]
            await sandbox.files.remove(name)
            with pytest.raises(SandboxFileNotFoundError):
                await sandbox.read(name)


@pytest.mark.parametrize("hours", [-5, 5])
async def test_a_clock_that_is_hours_wrong_makes_no_sandbox_that_dies_at_birth_or_lives_too_long(
    cluster: PretendCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    class WrongClock(SystemClock):
        def now(self) -> datetime:
            return super().now() + timedelta(hours=hours)

    monkeypatch.setattr(connection, "ServerClock", lambda kube: lifetime.ServerClock(kube, WrongClock()))
    site = await ApiServerSite.prepare(cluster.api.server, tmp_path / "api", port=0)
    async with (
        site,
        AsyncSandboxClient(
            "python", ttl=600, kubeconfig=site.credentials.kubeconfig_file, local=False, api_url=cluster.api_url
        ) as sandbox,
    ):
        claim = await cluster.kube.get_object(SANDBOX_CLAIMS, sandbox.claim_name or "", "default")
        extended = await sandbox.sandbox.extend(60)

    now = datetime.now(UTC)
    end = datetime.fromisoformat(claim["spec"]["lifecycle"]["shutdownTime"])
    assert abs(end - now - timedelta(seconds=600)) < timedelta(seconds=60)
    assert abs(extended - now - timedelta(seconds=60)) < timedelta(seconds=30)
