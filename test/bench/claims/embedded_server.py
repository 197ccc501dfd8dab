# ruff: noqa: T201 - a program that prints
"""The embedded API server alone, durable in a folder, without TLS and credentials: as claims.py's other servers.

What stands between socket and server is as thin as here, so that servers are compared and not fronts.
"""

import contextlib
import sys
from pathlib import Path
from typing import Any

import anyio
import msgspec
from aiohttp import web

from agent_sandbox.local.apiserver import ApiRequest, ApiServer, ObjectStore, SqliteJournal, UserInfo
from agent_sandbox.local.apiserver.http import split_query
from agent_sandbox_api.crds import load_crds
from agent_sandbox_api.names import SYSTEM_NAMESPACE


async def main(folder: Path) -> None:
    """Serve until killed."""
    server = ApiServer(ObjectStore(SqliteJournal(folder / "objects.db")))
    await server.open()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        answer = await server.handle(
            ApiRequest(
                request.method,
                request.path,
                split_query(request.query_string),
                {name.lower(): value for name, value in request.headers.items()},
                await request.read(),
                UserInfo(),
            )
        )
        if answer.stream is None:
            return web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        await response.prepare(request)
        with contextlib.suppress(ConnectionResetError):  # the watcher has gone
            async for chunk in answer.stream:
                await response.write(chunk)
        return response

    async with anyio.create_task_group() as tasks:
        await tasks.start(server.run)

        async def create(path: str, body: Any) -> None:
            answer = await server.handle(ApiRequest("POST", path, body=msgspec.json.encode(body), user=UserInfo()))
            assert answer.status == 201, answer.body

        await create("/api/v1/namespaces", {"metadata": {"name": SYSTEM_NAMESPACE}})
        for crd in load_crds():
            await create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
        runner = web.ServerRunner(web.Server(handle), handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(runner.addresses[0][1], flush=True)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), backend_options={"use_uvloop": True})
