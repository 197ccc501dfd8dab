"""The legacy contract that any runtime image speaks: ``/execute``, ``/upload`` and ``/download`` on one port.

In: a command, a path, bytes. Out: what the runtime answered. Our own daemon speaks it too and honours the additional
fields that others ignore: a command timeout, an operation id, byte-safe output.
"""

import base64
import binascii
import json
import secrets
from typing import Any, Final

from agent_sandbox.sdk.errors import (
    CommandTimeoutError,
    RequestTimeoutError,
    SandboxFileNotFoundError,
    SandboxGoneError,
    SandboxOutcomeUnknownError,
    SandboxProtocolError,
    SandboxRequestError,
    UnsupportedByRuntimeError,
)
from agent_sandbox.sdk.results import ExecutionResult
from agent_sandbox.sdk.wire import HEADER_TIMEOUT, Wire, check_timeout, encode_path, payload

_WITHOUT_END: Final = {HEADER_TIMEOUT: "86400"}
"""A router gives up on silence unless it is told how long a command may take; a day is the most that it grants."""

GRACE_SECONDS: Final = 10.0
"""How much longer than a command's own timeout its answer is waited for: the runtime kills the command and reports."""


async def execute(wire: Wire, command: str, timeout: float | None, *, path: str = "execute") -> ExecutionResult:
    """Run a command and wait for its end. The runtime splits it as a shell would, but runs no shell.

    Args:
        wire: the sandbox.
        command: the command line.
        timeout: seconds until the runtime kills the command with everything it started; None means never.
        path: the runtime's path.

    Raises:
        CommandTimeoutError: it was killed; the error carries the output until then.
        SandboxError: the request failed; it was not repeated.
    """
    fields = {
        "command": command,
        "timeout": timeout,
        "encoding": "base64",
        "operation_id": secrets.token_hex(16),
        "on_disconnect": "kill",
    }
    what = f"command {command!r}"
    try:
        result = await post_for_result(wire, path, fields, timeout, what)
    except SandboxOutcomeUnknownError as error:
        if await wire.is_gone():
            raise SandboxGoneError(
                f"{what} was lost with its sandbox {wire.name}, which is being deleted or is gone"
            ) from error
        raise
    await wire.check_not_ended(result, what)
    return result


async def post_for_result(
    wire: Wire, path: str, fields: dict[str, Any], timeout: float | None, what: str
) -> ExecutionResult:
    """POST JSON to a runtime that answers with stdout, stderr and exit_code.

    Raises:
        UnsupportedByRuntimeError: what listens there has no such path.
        SandboxError: as for ``execute``.
    """
    check_timeout(timeout)
    body = json.dumps({key: value for key, value in fields.items() if value is not None}).encode()
    try:
        answer = await wire.request(
            "POST",
            path,
            timeout=None if timeout is None else timeout + GRACE_SECONDS,
            body=lambda: body,
            headers={"Content-Type": "application/json"} | ({} if timeout is not None else _WITHOUT_END),
        )
    except SandboxFileNotFoundError as error:
        raise UnsupportedByRuntimeError(
            f"what listens on port {wire.port} of sandbox {wire.name} has no /{path}: another program, or an image "
            "without that part of the runtime",
            status=error.status,
            detail=error.detail,
        ) from error
    except RequestTimeoutError as error:
        raise CommandTimeoutError(
            f"{what} did not end within {timeout:g} s, and the runtime did not answer: it may still run"
            if timeout is not None
            else f"{what}: {error.message}",
        ) from error
    return _read_result(answer.json(), timeout, what)


def _read_result(data: Any, timeout: float | None, what: str) -> ExecutionResult:
    if not isinstance(data, dict):
        raise SandboxProtocolError(f"{what}: the runtime answered a {type(data).__name__} instead of a JSON object")
    stdout, stderr = (_output(data, name, what) for name in ("stdout", "stderr"))
    duration = data.get("duration_ms")
    result = ExecutionResult(
        stdout=stdout.decode("utf-8", "replace"),
        stderr=stderr.decode("utf-8", "replace"),
        exit_code=_exit_code(data, what),
        stdout_truncated=bool(data.get("stdout_truncated")),
        stderr_truncated=bool(data.get("stderr_truncated")),
        duration=float(duration) / 1000 if isinstance(duration, int | float) else None,
        stdout_bytes=stdout,
        stderr_bytes=stderr,
    )
    if data.get("timed_out"):
        limit = f"after {timeout:g} s" if timeout is not None else "at the runtime's own limit"
        raise CommandTimeoutError(f"{what} was killed {limit}", stdout=result.stdout, stderr=result.stderr, killed=True)
    return result


def _output(data: dict[str, Any], name: str, what: str) -> bytes:
    text = data.get(name) or ""
    try:
        return base64.b64decode(text, validate=True) if data.get("encoding") == "base64" else text.encode()
    except (AttributeError, TypeError, binascii.Error) as error:
        raise SandboxProtocolError(f"{what}: the runtime's {name} is no text") from error


def _exit_code(data: dict[str, Any], what: str) -> int:
    code = data.get("exit_code", -1)
    if not isinstance(code, int):
        raise SandboxProtocolError(f"{what}: the runtime's exit_code is {code!r}, which is no number")
    return code


async def upload(wire: Wire, path: str, content: bytes, timeout: float | None) -> None:
    """Write a file. The whole path is sent; some old images keep only its last part."""
    boundary = secrets.token_hex(16)
    # Raw UTF-8 with backslash escapes is the one form that every server's parser reads alike; encodings of RFC 5987
    # and percent signs are taken literally by some.
    name = path.replace("\\", "\\\\").replace('"', '\\"')
    if any(character in path for character in "\r\n\0"):
        raise SandboxRequestError(f"{path!r} holds a control character", status=400, detail="invalid path")
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode(errors="surrogateescape")
    await wire.request(
        "POST",
        "upload",
        timeout=timeout,
        body=lambda: payload(b"".join([head, content, f"\r\n--{boundary}--\r\n".encode()])),
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )


async def download(wire: Wire, path: str, timeout: float | None) -> bytes:
    """Read a file."""
    answer = await wire.request("GET", f"download/{encode_path(path)}", timeout=timeout)
    return answer.body
