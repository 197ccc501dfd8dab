"""The legacy contract on the wire: /, /execute, /upload, /download, /list and /exists.

Every agent that spoke to the original Python runtime speaks to this one: the same paths, fields and texts. What is new
is optional and additive: timeouts, variables, standard input, operation identifiers, truncation flags.
"""

import base64
from typing import Any, Final

from aiohttp import BodyPartReader, web

from agent_sandbox.sandboxd import files
from agent_sandbox.sandboxd.child import Launch
from agent_sandbox.sandboxd.confine import Confinement
from agent_sandbox.sandboxd.disposition import file_name
from agent_sandbox.sandboxd.errors import (
    ConflictError,
    InvalidRequestError,
    PathDeniedError,
    PathNotFoundError,
    SandboxdError,
)
from agent_sandbox.sandboxd.execution import ExecuteRequest, Executor, Outcome, refused
from agent_sandbox.sandboxd.http_files import ANY_PATH, OpenedFile, path_after
from agent_sandbox.sandboxd.options import SandboxdOptions
from agent_sandbox.sandboxd.requests import Fields, read_object, split_command
from agent_sandbox.sandboxd.threads import in_thread

PART_SIZE: Final = 256 * 1024
"""Bytes taken from a multipart body at once."""


class LegacyApi:
    """Handlers of the legacy contract.

    Args:
        environment: variables that every command starts from.
    """

    def __init__(
        self, options: SandboxdOptions, confinement: Confinement, executor: Executor, environment: dict[str, str]
    ) -> None:
        self._options = options
        self._confinement = confinement
        self._executor = executor
        self._environment = environment

    def routes(self) -> list[web.RouteDef]:
        """The routes of this API."""
        return [
            web.get("/", self.root),
            web.post("/execute", self.execute),
            web.post("/upload", self.upload),
            web.get(f"/download/{ANY_PATH}", self.download),
            web.get(f"/list/{ANY_PATH}", self.list_directory),
            web.get("/list", self.list_directory),
            web.get(f"/exists/{ANY_PATH}", self.exists),
        ]

    async def root(self, request: web.Request) -> web.Response:
        """Say that the runtime is there."""
        return web.json_response({"status": "ok", "message": "Sandbox Runtime is active."})

    async def execute(self, request: web.Request) -> web.Response:
        """Run a command to its end; failures of the command are told in the answer, which is always 200."""
        try:
            fields = Fields(read_object(await request.read()))
            command = _command(fields)
            encoding = fields.choice("encoding", "utf-8", "base64")
            try:
                asked = self._request(fields, split_command(command))
            except ValueError as error:
                return web.json_response(_answer(refused(str(error)), encoding))
            outcome = await self._executor.execute(asked, on_refusal=refused)
        except (InvalidRequestError, ConflictError) as error:
            return web.json_response({"detail": str(error)}, status=422)
        return web.json_response(_answer(outcome, encoding))

    async def upload(self, request: web.Request) -> web.Response:
        """Store the multipart field ``file`` under its file name."""
        if not request.content_type.startswith("multipart/"):
            return web.json_response({"detail": "send multipart/form-data with a field called 'file'"}, status=422)
        try:
            async for part in await request.multipart():
                if not isinstance(part, BodyPartReader) or part.name != "file":
                    continue
                if name := file_name(part.headers.get("Content-Disposition", "")):
                    return await self._store(part, name)
        except ValueError as error:
            return web.json_response({"detail": f"the multipart body is malformed: {error}"}, status=422)
        return web.json_response({"detail": "the field 'file' with a file name is missing"}, status=422)

    async def download(self, request: web.Request) -> web.StreamResponse:
        """Send a file; ranges and conditional requests work."""
        path = path_after(request, "/download/")
        try:
            return await OpenedFile.open(self._confinement, path)
        except PathNotFoundError:
            return web.json_response({"message": "File not found"}, status=404)
        except PathDeniedError:
            return _denied()

    async def list_directory(self, request: web.Request) -> web.Response:
        """The entries of a directory."""
        path = path_after(request, "/list/")
        try:
            entries = await in_thread(files.list_blocking, self._confinement, path)
        except PathNotFoundError:
            return web.json_response({"message": "Path is not a directory"}, status=404)
        except PathDeniedError:
            return _denied()
        except SandboxdError as error:
            return web.json_response({"message": f"List files failed: {error}"}, status=500)
        return web.json_response([_listed(entry) for entry in entries])

    async def exists(self, request: web.Request) -> web.Response:
        """Whether something is at the path."""
        path = path_after(request, "/exists/")
        try:
            found = await in_thread(files.exists_blocking, self._confinement, path)
        except PathDeniedError:
            return _denied()
        return web.json_response({"path": path, "exists": found})

    def _request(self, fields: Fields, argv: list[str]) -> ExecuteRequest:
        environment = {**self._environment, **fields.variables("env")}
        cwd = str(self._confinement.root / (fields.text("cwd") or ""))
        stdin = fields.text("stdin")
        environment["PWD"] = cwd
        timeout = fields.seconds("timeout") or self._options.default_timeout
        if timeout is not None and self._options.max_timeout is not None:
            timeout = min(timeout, self._options.max_timeout)
        return ExecuteRequest(
            launch=Launch(
                argv=argv,
                cwd=cwd,
                environment=environment,
                stdin=None if stdin is None else stdin.encode("utf-8", "surrogatepass"),
            ),
            timeout=timeout,
            keep_running=fields.choice("on_disconnect", "kill", "continue") == "continue",
            operation_id=fields.operation_id(),
        )

    async def _store(self, part: BodyPartReader, name: str) -> web.Response:
        try:
            async with files.FileSink(self._confinement, name, limit=self._options.max_upload_bytes) as sink:
                while chunk := await part.read_chunk(PART_SIZE):
                    await sink.write(chunk)
                await sink.commit()
        except PathDeniedError:
            return _denied()
        except SandboxdError as error:
            status = error.status if error.status in (413, 507) else 500
            return web.json_response({"message": f"File upload failed: {error}"}, status=status)
        return web.json_response({"message": f"File '{name}' uploaded successfully."})


def _command(fields: Fields) -> str | list[str]:
    try:
        return fields.required_text("command")
    except InvalidRequestError:
        argv = fields.strings("command")
        if argv is None:
            raise
        return argv


def _answer(outcome: Outcome, encoding: str) -> dict[str, Any]:
    return {
        "stdout": _text(outcome.stdout, encoding),
        "stderr": _text(outcome.stderr, encoding),
        "exit_code": outcome.exit_code,
        "stdout_truncated": outcome.stdout_truncated,
        "stderr_truncated": outcome.stderr_truncated,
        "timed_out": outcome.timed_out,
        "started": outcome.started,
        "duration_ms": round(outcome.seconds * 1000, 3),
        "encoding": encoding,
    }


def _text(data: bytes, encoding: str) -> str:
    return base64.b64encode(data).decode() if encoding == "base64" else data.decode(errors="replace")


def _listed(entry: files.Entry) -> dict[str, Any]:
    # Clients of the original know two types only.
    kind = "directory" if entry.kind == "directory" else "file"
    return {"name": entry.name, "size": entry.size, "type": kind, "mod_time": entry.modified}


def _denied() -> web.Response:
    return web.json_response({"message": "Access denied"}, status=403)
