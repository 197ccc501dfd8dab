"""A runtime of one's own in one file: the three calls that every Agent Sandbox client knows, with FastAPI.

Change it into what your sandboxes need. ``docs/sandboxd.md`` has the finished daemon: streams, terminals, background
processes, resumed transfers.
"""

import asyncio
import contextlib
import os
import secrets
import shlex
import shutil
import signal
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Request, UploadFile
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

ROOT = Path(os.environ.get("SANDBOX_ROOT", "/workspace")).resolve()
"""Where commands start and relative paths lead."""
OTHER_ROOTS = tuple(Path(name).resolve() for name in os.environ.get("SANDBOX_OTHER_ROOTS", "/tmp").split(":"))
"""What else may be uploaded to and downloaded from."""
MAX_SECONDS = 300.0
"""The longest that a command may run."""

app = FastAPI(title="Agent Sandbox runtime")


class Command(BaseModel, strict=True):
    """What to run: a line that is split as a shell would, but no shell; or the arguments themselves."""

    command: str | list[str]
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = MAX_SECONDS


class Result(BaseModel):
    """What came of it. A signal is a negative exit code."""

    stdout: str = ""
    stderr: str = ""
    exit_code: int


@app.get("/")
async def alive() -> dict[str, str]:
    """Probes and ``is_ready()`` ask this."""
    return {"status": "ok", "message": "Sandbox Runtime is active."}


@app.post("/execute")
async def execute(asked: Command) -> Result:
    """Run a command to its end. Whatever becomes of it is told in the answer, which is always 200."""
    try:
        arguments = shlex.split(asked.command) if isinstance(asked.command, str) else asked.command
        if not arguments:
            raise ValueError("the command is empty")
        process = await asyncio.create_subprocess_exec(
            *arguments,
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # a group of its own, so that all of it can be killed
        )
    except (OSError, ValueError) as error:
        return Result(exit_code=1, stderr=f"Failed to execute command: {error}")
    try:
        async with asyncio.timeout(min(asked.timeout, MAX_SECONDS)):
            stdout, stderr = await process.communicate()
    except TimeoutError:
        return Result(exit_code=-signal.SIGKILL, stderr=f"The command was killed after {asked.timeout:g} s.")
    finally:
        if process.returncode is None:  # too slow, or nobody waits for the answer any more
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return Result(
        exit_code=await process.wait(),
        stdout=stdout.decode(errors="replace"),
        stderr=stderr.decode(errors="replace"),
    )


@app.post("/upload")
def upload(file: UploadFile) -> Response:
    """Store the multipart field ``file`` under its file name: whole, or not at all."""
    target = inside(file.filename or "")
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as output:
            shutil.copyfileobj(file.file, output)
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        return JSONResponse({"message": f"File upload failed: {error.strerror}"}, status_code=500)
    return JSONResponse({"message": f"File '{file.filename}' uploaded successfully."})


@app.get("/download/{path:path}")
def download(path: str) -> Response:
    """Send a file; ranges work."""
    target = inside(path)
    if not target.is_file():
        return JSONResponse({"message": "File not found"}, status_code=404)
    return FileResponse(target, media_type="application/octet-stream", filename=target.name)


class OutsideError(Exception):
    """A path that leads out of the directories that callers may use."""


def inside(name: str) -> Path:
    """The path that a name means.

    What runs in the sandbox may change links between this look and the use; it can do no more with that than it can by
    itself, for it is the same user.

    Raises:
        OutsideError: it is outside.
    """
    path = (ROOT / name).resolve()
    if not any(path.is_relative_to(root) for root in (ROOT, *OTHER_ROOTS)):
        raise OutsideError(name)
    return path


@app.exception_handler(OutsideError)
async def denied(request: Request, error: OutsideError) -> Response:
    """What the original runtime says."""
    return JSONResponse({"message": "Access denied"}, status_code=403)


@app.exception_handler(HTTPException)
async def refused(request: Request, error: HTTPException) -> Response:
    """A body that cannot be read is the caller's mistake like any other that FastAPI finds: 422."""
    return JSONResponse({"detail": error.detail}, status_code=422 if error.status_code == 400 else error.status_code)


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(app, host="0.0.0.0", port=int(os.environ.get("PORT", "8888")), access_log=False)  # noqa: S104 - in a Pod
