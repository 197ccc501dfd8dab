"""AsyncSandboxClient against the embedded API server and the real daemon."""

from typing import Any

import anyio
import pytest

from agent_sandbox.sdk import (
    AsyncSandboxClient,
    CommandTimeoutError,
    SandboxCleanupError,
    SandboxFileNotFoundError,
    SandboxGoneError,
    SandboxNotReadyError,
    SandboxPermissionError,
    SandboxPodFailedError,
    SandboxReadyTimeoutError,
    SandboxTemplateNotFoundError,
)
from agent_sandbox.testing.pretend_cluster import PretendCluster
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS


def client_of(cluster: PretendCluster, **options: object) -> AsyncSandboxClient:
    """A client of the pretend cluster."""
    return AsyncSandboxClient("python", kube=cluster.kube, api_url=cluster.api_url, **options)  # type: ignore[arg-type]


async def test_the_example_of_the_seed_works_as_written(cluster: PretendCluster) -> None:
    async with client_of(cluster) as sandbox:
        result = await sandbox.run("python3 -c 'print(42)'")
        path = str(cluster.workspace / "test.py")
        await sandbox.write(path, "print('Hello')")
        hello = await sandbox.run(f"python3 {path}")
        content = await sandbox.read(path)

    assert (result.stdout, result.stderr, result.exit_code) == ("42\n", "", 0)
    assert hello.stdout == "Hello\n"
    assert content == b"print('Hello')"


async def test_the_claim_lives_exactly_as_long_as_the_block(cluster: PretendCluster) -> None:
    client = client_of(cluster)
    before = await client.is_ready()
    async with client:
        during = await cluster.claim_names()
        ready = await client.is_ready()

    assert (before, ready, await client.is_ready()) == (False, True, False)
    assert during == [client.claim_name]
    assert await cluster.claim_names() == []


async def test_the_attributes_of_the_seed_are_there(cluster: PretendCluster) -> None:
    async with client_of(cluster) as sandbox:
        name = sandbox.claim_name

        assert name is not None
        assert name.startswith("sandbox-claim-")
        assert sandbox.sandbox_name == f"box-of-{name}"
        assert sandbox.pod_name == f"pod-of-{name}"
        assert sandbox.annotations["team"] == "a"
        assert sandbox.base_url == cluster.api_url
        assert sandbox.port_forward_process is None


async def test_requests_name_the_sandbox_its_namespace_and_its_port(cluster: PretendCluster) -> None:
    async with client_of(cluster, router_token="secret", headers={"Authorization": "Bearer mine"}) as sandbox:
        await sandbox.run("true", timeout=None)
        without_end = cluster.requests[-1]
        await sandbox.run("true")

    headers = cluster.requests[-1]
    assert without_end["X-Sandbox-Timeout"] == "86400"
    assert headers["X-Sandbox-ID"] == f"box-of-{sandbox.claim_name}"
    assert headers["X-Sandbox-Namespace"] == "default"
    assert headers["X-Sandbox-Port"] == "8888"
    assert headers["X-Sandbox-Timeout"] == "70"
    assert headers["X-Sandbox-Authorization"] == "Bearer secret"
    assert headers["Authorization"] == "Bearer mine"


async def test_a_missing_template_ends_the_wait_with_its_name(cluster: PretendCluster) -> None:
    cluster.answer = lambda _: {
        "status": "False",
        "reason": "TemplateNotFound",
        "message": 'SandboxTemplate "python" not found',
    }

    with pytest.raises(SandboxTemplateNotFoundError, match='SandboxTemplate "python" not found'):
        async with client_of(cluster):
            pytest.fail("entered")
    assert await cluster.claim_names() == []


async def test_a_container_that_cannot_start_is_told_with_its_reason(cluster: PretendCluster) -> None:
    cluster.answer = lambda _: {"status": "False", "reason": "StartError", "message": "no such file: /nope"}

    with pytest.raises(SandboxPodFailedError, match="no such file: /nope") as caught:
        async with client_of(cluster):
            pytest.fail("entered")
    assert caught.value.reason == "StartError"
    assert await cluster.claim_names() == []


async def test_a_timeout_carries_the_last_condition_and_deletes_the_claim(
    cluster: PretendCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.answer = lambda _: {"status": "False", "reason": "DependenciesNotReady", "message": "Pod is Pending"}
    create = cluster.kube.create

    async def create_and_let_answer(*arguments: Any, **options: Any) -> Any:
        """The time to wait begins when the controller has said what it has to say."""
        made = await create(*arguments, **options)
        while arguments[0] is SANDBOX_CLAIMS and not made.status.conditions:
            made = await cluster.kube.get(SANDBOX_CLAIMS, made.metadata.name, "default")
        return made

    monkeypatch.setattr(cluster.kube, "create", create_and_let_answer)
    with pytest.raises(TimeoutError, match="DependenciesNotReady: Pod is Pending") as caught:
        async with client_of(cluster, sandbox_ready_timeout=0.05):
            pytest.fail("entered")
    assert isinstance(caught.value, SandboxReadyTimeoutError)
    assert caught.value.reason == "DependenciesNotReady"
    assert await cluster.claim_names() == []


async def test_a_claim_deleted_by_somebody_else_ends_the_wait(cluster: PretendCluster) -> None:
    cluster.answer = lambda _: None
    client = client_of(cluster)

    async with anyio.create_task_group() as tasks:

        async def delete_it() -> None:
            while not (await cluster.claim_names()):
                await anyio.lowlevel.checkpoint()
            for claim in (await cluster.kube.list(SANDBOX_CLAIMS, "default")).items:
                await cluster.kube.delete(SANDBOX_CLAIMS, claim.metadata.name, "default", uid=claim.metadata.uid)

        tasks.start_soon(delete_it)
        with pytest.raises(SandboxGoneError):
            async with client:
                pytest.fail("entered")


async def test_cancellation_while_waiting_deletes_the_claim(cluster: PretendCluster) -> None:
    cluster.answer = lambda _: None

    async with anyio.create_task_group() as tasks:

        async def use() -> None:
            async with client_of(cluster):
                pytest.fail("entered")

        tasks.start_soon(use)
        while not await cluster.claim_names():
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert await cluster.claim_names() == []


async def test_an_error_in_the_block_deletes_the_claim_and_passes_through(cluster: PretendCluster) -> None:
    with pytest.raises(ZeroDivisionError):
        async with client_of(cluster):
            _ = 1 / 0
    assert await cluster.claim_names() == []


async def test_a_command_past_its_timeout_is_killed_and_its_output_kept(cluster: PretendCluster) -> None:
    async with client_of(cluster) as sandbox:
        with pytest.raises(CommandTimeoutError) as caught:
            await sandbox.run("sh -c 'echo begun; exec sleep 60'", timeout=1.5)

    assert caught.value.stdout == "begun\n"
    assert caught.value.killed


async def test_a_command_that_does_not_exist_says_so_on_stderr(cluster: PretendCluster) -> None:
    async with client_of(cluster) as sandbox:
        result = await sandbox.run("no-such-program")

    assert result.exit_code == 1
    assert "no-such-program" in result.stderr


async def test_output_that_is_no_utf8_is_kept_byte_for_byte(cluster: PretendCluster) -> None:
    async with client_of(cluster) as sandbox:
        result = await sandbox.run(r"printf '\377\000x'")

    assert result.stdout_bytes == b"\xff\x00x"
    assert result.stdout == "\ufffd\x00x"


@pytest.mark.parametrize(
    "name", ["plain.txt", "d/e/f.txt", "with space", "per%41cent", 'quo"te', "back\\slash", "grüße-日本"]
)
async def test_any_file_name_survives_the_way_there_and_back(cluster: PretendCluster, name: str) -> None:
    async with client_of(cluster) as sandbox:
        await sandbox.write(name, name)

        assert await sandbox.read(name) == name.encode()
        assert (cluster.workspace / name).read_text() == name


async def test_a_missing_file_is_a_file_not_found_error(cluster: PretendCluster) -> None:
    async with client_of(cluster) as sandbox:
        with pytest.raises(FileNotFoundError) as caught:
            await sandbox.read("nope")

    assert isinstance(caught.value, SandboxFileNotFoundError)
    assert caught.value.status == 404


async def test_a_path_outside_the_root_is_refused(cluster: PretendCluster) -> None:
    async with client_of(cluster) as sandbox:
        with pytest.raises(SandboxPermissionError):
            await sandbox.read("/etc/hostname")
        with pytest.raises(SandboxPermissionError):
            await sandbox.write("../../../etc/x", b"")


async def test_methods_outside_the_block_say_how_to_open_the_client(cluster: PretendCluster) -> None:
    client = client_of(cluster)

    with pytest.raises(SandboxNotReadyError, match="with block"):
        await client.run("true")


async def test_a_claim_that_cannot_be_deleted_is_an_error_only_if_there_is_no_other(
    cluster: PretendCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent_sandbox.kube import ForbiddenError

    async def refuse(*arguments: object, **options: object) -> None:
        raise ForbiddenError(403, "Forbidden", "no")

    monkeypatch.setattr(cluster.kube, "delete", refuse)
    with pytest.raises(SandboxCleanupError, match="still exists"):
        async with client_of(cluster):
            pass
    with pytest.raises(ZeroDivisionError) as caught:
        async with client_of(cluster):
            _ = 1 / 0
    assert "still exists" in caught.value.__notes__[0]
