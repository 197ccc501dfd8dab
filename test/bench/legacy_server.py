"""A runtime as the Go project ships it, the yardstick of ``sdk_bench.py``: its contract and its ways, nothing else.

One server, commands in worker threads whose output is held whole and answered at the end, uploads read whole into
memory, downloads from the file. ``python test/bench/legacy_server.py DIRECTORY`` prints its port.
"""

import asyncio
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from aiohttp import BodyPartReader, web

ROOT = Path(sys.argv[1] if len(sys.argv) > 1 else "/app").resolve()
SECONDS = 300


def run(command: str) -> dict[str, Any]:
    """Run a command to its end."""
    try:
        done = subprocess.run(
            shlex.split(command),
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=SECONDS,
            start_new_session=True,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return {"stdout": "", "stderr": f"Failed to execute command: {error}", "exit_code": 1}
    return {"stdout": done.stdout, "stderr": done.stderr, "exit_code": done.returncode}


async def root(request: web.Request) -> web.Response:
    return web.json_response({"status": "ok", "message": "Sandbox Runtime is active."})


async def execute(request: web.Request) -> web.Response:
    body = await request.json()
    return web.json_response(await asyncio.to_thread(run, body["command"]))


async def upload(request: web.Request) -> web.Response:
    reader = await request.multipart()
    part = await reader.next()
    assert isinstance(part, BodyPartReader)
    content = await part.read()
    target = ROOT / (part.filename or "file")
    await asyncio.to_thread(target.write_bytes, content)
    return web.json_response({"message": f"File '{part.filename}' uploaded successfully."})


async def download(request: web.Request) -> web.StreamResponse:
    return web.FileResponse(ROOT / request.match_info["path"])


async def main() -> None:
    app = web.Application(client_max_size=4 * 2**30)
    app.add_routes(
        [
            web.get("/", root),
            web.post("/execute", execute),
            web.post("/upload", upload),
            web.get("/download/{path}", download),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)  # noqa: T201 - the port
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
