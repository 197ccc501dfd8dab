"""The ``/agent`` runtime, and old routers and runtimes in general."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

import agent_sandbox
from agent_sandbox.sdk import (
    AsyncComputerUseExtension,
    AsyncSandboxClient,
    CommandTimeoutError,
    ComputerUseExtension,
    SandboxConnectionError,
    SandboxGoneError,
    SandboxNotReadyError,
    SandboxOutcomeUnknownError,
    SandboxPermissionError,
    SandboxProtocolError,
    SandboxRequestError,
    SandboxTooLargeError,
    wire,
)
from agent_sandbox.testing.pretend_cluster import PretendCluster


@asynccontextmanager
async def runtime(handler: Any) -> AsyncIterator[str]:
    """Any runtime, or router; gives its URL."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_the_agent_is_asked_once_and_its_answer_returned(cluster: PretendCluster) -> None:
    asked: list[Any] = []

    async def agent(request: web.Request) -> web.Response:
        asked.append((request.path, await request.json()))
        return web.json_response({"stdout": "done", "stderr": "", "exit_code": 0})

    async with (
        runtime(agent) as url,
        AsyncComputerUseExtension("cu", kube=cluster.kube, api_url=url) as sandbox,
    ):
        result = await sandbox.agent("book a flight")
        await sandbox.agent("again", api_key="k")

    assert result.stdout == "done"
    assert asked == [("/agent", {"query": "book a flight"}), ("/agent", {"query": "again", "api_key": "k"})]


async def test_a_task_that_takes_too_long_is_not_repeated(
    cluster: PretendCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_sandbox.sdk.legacy.GRACE_SECONDS", 0.1)
    asked: list[str] = []

    async def agent(request: web.Request) -> web.Response:
        asked.append(request.path)
        await asyncio.Event().wait()
        raise AssertionError("never answers")

    async with (
        runtime(agent) as url,
        AsyncComputerUseExtension("cu", kube=cluster.kube, api_url=url) as sandbox,
    ):
        with pytest.raises(CommandTimeoutError, match="may still run") as caught:
            await sandbox.agent("think", timeout=1)

    assert not caught.value.killed
    assert asked == ["/agent"]


def test_the_names_of_the_go_project_mean_the_same_class() -> None:
    assert agent_sandbox.ComputerUseSandbox is ComputerUseExtension is agent_sandbox.ComputerUseSandboxClient


@pytest.mark.parametrize(
    ("status", "reason", "kind", "again"),
    [
        (502, "broken", SandboxOutcomeUnknownError, False),
        (504, "timeout", CommandTimeoutError, False),
        (404, "not-found", SandboxGoneError, False),
        (409, "suspended", SandboxNotReadyError, False),
        (401, "unauthenticated", SandboxPermissionError, False),
        (413, "too-large", SandboxTooLargeError, False),
        (502, None, SandboxRequestError, False),
        (500, None, SandboxRequestError, False),
        (502, "unreachable", SandboxConnectionError, True),
        (503, "not-ready", SandboxNotReadyError, True),
    ],
)
async def test_only_what_the_router_says_was_not_sent_is_tried_again(
    cluster: PretendCluster,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    reason: str | None,
    kind: type[Exception],
    again: bool,
) -> None:
    monkeypatch.setattr(wire, "RETRY_SECONDS", 1)
    seen: list[str] = []

    async def router(request: web.Request) -> web.Response:
        seen.append(request.path)
        headers = {} if reason is None else {"X-Sandbox-Error": reason}
        return web.json_response({"detail": "the reason"}, status=status, headers=headers)

    async with (
        runtime(router) as url,
        AsyncSandboxClient("t", kube=cluster.kube, api_url=url) as sandbox,
    ):
        with pytest.raises(kind, match=r"the reason|may still run"):
            await sandbox.run("true")

    assert (len(seen) > 1) is again


async def test_a_router_that_is_not_there_is_a_connection_error(
    cluster: PretendCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "RETRY_SECONDS", 0.2)
    async with AsyncSandboxClient("t", kube=cluster.kube, api_url="http://127.0.0.1:1") as sandbox:
        with pytest.raises(ConnectionError, match="Nothing was sent"):
            await sandbox.run("true")
        assert not await sandbox.is_ready()


async def test_a_connection_cut_before_the_answer_is_of_unknown_outcome_and_not_repeated(
    cluster: PretendCluster,
) -> None:
    seen: list[str] = []

    async def cut(request: web.Request) -> web.Response:
        seen.append(request.path)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with runtime(cut) as url, AsyncSandboxClient("t", kube=cluster.kube, api_url=url) as sandbox:
        with pytest.raises(SandboxOutcomeUnknownError, match="may have been carried out"):
            await sandbox.run("true")
        with pytest.raises(SandboxOutcomeUnknownError):
            await sandbox.write("a", "b")

    assert seen == ["/execute", "/upload"]


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"stdout": 1}', b'{"exit_code": "0"}'])
async def test_an_answer_that_makes_no_sense_is_a_protocol_error(cluster: PretendCluster, body: bytes) -> None:
    async def nonsense(request: web.Request) -> web.Response:
        return web.Response(body=body)

    async with runtime(nonsense) as url, AsyncSandboxClient("t", kube=cluster.kube, api_url=url) as sandbox:
        with pytest.raises(SandboxProtocolError):
            await sandbox.run("true")


async def test_missing_keys_of_an_old_runtime_have_the_seeds_defaults(cluster: PretendCluster) -> None:
    async def old(request: web.Request) -> web.Response:
        return web.json_response({})

    async with runtime(old) as url, AsyncSandboxClient("t", kube=cluster.kube, api_url=url) as sandbox:
        result = await sandbox.run("true")

    assert (result.stdout, result.stderr, result.exit_code) == ("", "", -1)


def test_the_synchronous_extension_asks_too(sync_cluster: PretendCluster) -> None:
    with ComputerUseExtension("cu", kube=sync_cluster.kube, api_url=sync_cluster.api_url) as sandbox:
        with pytest.raises(SandboxRequestError):  # the plain daemon has no agent
            sandbox.agent("hello")
        assert sandbox.run("echo 1").stdout == "1\n"
