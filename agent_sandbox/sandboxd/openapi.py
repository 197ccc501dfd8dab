"""The OpenAPI document of the daemon: one line per operation, kept beside the handlers by a test."""

import re
from typing import Any, Final

_TEXT: Final = {"type": "string"}
_NUMBER: Final = {"type": "integer"}
_FLAG: Final = {"type": "boolean"}
_SECONDS: Final = {"type": "number", "description": "seconds"}

_PROCESS_START: Final = {
    "type": "object",
    "description": "Give either argv or shell.",
    "properties": {
        "argv": {"type": "array", "items": _TEXT},
        "shell": {"type": "string", "description": "run by /bin/sh -c"},
        "cwd": _TEXT,
        "env": {"type": "object", "additionalProperties": _TEXT},
        "user": {"oneOf": [_TEXT, _NUMBER]},
        "stdin": {"type": "boolean", "default": False},
        "pty": {"type": "object", "properties": {"cols": _NUMBER, "rows": _NUMBER}},
        "timeout": _SECONDS,
        "operation_id": {"type": "string", "description": "repeating it never runs the command again"},
        "on_disconnect": {"enum": ["continue", "kill"]},
        "overflow": {"enum": ["auto", "block", "drop"]},
        "buffer_bytes": _NUMBER,
    },
}
_PROCESS: Final = {
    "type": "object",
    "properties": {
        "id": _TEXT,
        "operation_id": _TEXT,
        "pid": _NUMBER,
        "argv": {"type": "array", "items": _TEXT},
        "state": {"enum": ["running", "exited", "failed"]},
        "exit_code": {"type": "integer", "description": "negative: the signal that ended it"},
        "timed_out": _FLAG,
        "error": _TEXT,
        "started_at": {"type": "string", "format": "date-time"},
        "finished_at": {"type": "string", "format": "date-time"},
        "duration_ms": {"type": "number"},
        "last_seq": _NUMBER,
        "stdin_received": _NUMBER,
        "stdin_written": {"type": "integer", "description": "bytes of it that left for the command"},
        "pty": _FLAG,
    },
}
_EXECUTE: Final = {
    "type": "object",
    "required": ["command"],
    "properties": {
        "command": {"oneOf": [_TEXT, {"type": "array", "items": _TEXT}]},
        "timeout": _SECONDS,
        "cwd": _TEXT,
        "env": {"type": "object", "additionalProperties": _TEXT},
        "stdin": _TEXT,
        "encoding": {"enum": ["utf-8", "base64"]},
        "on_disconnect": {"enum": ["kill", "continue"]},
        "operation_id": _TEXT,
    },
}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


# (method, path, summary, query parameters, JSON body, success status)
_OPERATIONS: Final[tuple[tuple[str, str, str, tuple[str, ...], dict[str, Any] | None, int], ...]] = (
    ("get", "/", "Whether the runtime is there (legacy)", (), None, 200),
    ("get", "/healthz", "Whether the daemon serves", (), None, 200),
    ("get", "/metrics", "Prometheus metrics", (), None, 200),
    ("post", "/execute", "Run a command to its end (legacy); always 200", (), _EXECUTE, 200),
    ("post", "/upload", "Store the multipart field 'file' under its file name (legacy)", (), None, 200),
    ("get", "/download/{path}", "Read a file (legacy); ranges work", (), None, 200),
    ("get", "/list/{path}", "List a directory (legacy)", (), None, 200),
    ("get", "/list", "List the workspace (legacy)", (), None, 200),
    ("get", "/exists/{path}", "Whether something is there (legacy)", (), None, 200),
    ("get", "/v1/health", "Whether the daemon serves, and for how long", (), None, 200),
    ("get", "/v1/openapi.json", "This document", (), None, 200),
    ("post", "/v1/processes", "Start a process", (), _PROCESS_START, 201),
    ("get", "/v1/processes", "List processes", (), None, 200),
    ("get", "/v1/processes/{id}", "Show a process", ("reader",), None, 200),
    ("delete", "/v1/processes/{id}", "Kill a process and forget it", (), None, 204),
    ("post", "/v1/processes/{id}/signal", "Send a signal", (), _object(signal=_TEXT, scope=_TEXT), 200),
    ("post", "/v1/processes/{id}/resize", "Resize the terminal", (), _object(cols=_NUMBER, rows=_NUMBER), 200),
    ("get", "/v1/processes/{id}/wait", "Wait for the end", ("timeout",), None, 200),
    ("get", "/v1/processes/{id}/stream", "WebSocket: output behind a number, input", ("after", "reader"), None, 101),
    ("get", "/v1/exec", "WebSocket: start a process and attach, in one round trip", (), None, 101),
    ("get", "/v1/files/{path}", "Read a file, or list a directory", ("checksum",), None, 200),
    ("put", "/v1/files/{path}", "Write a file whole", ("mode", "sha256"), None, 204),
    ("delete", "/v1/files/{path}", "Remove a file or a directory", ("recursive",), None, 204),
    ("get", "/v1/stat", "Describe what is at a path", ("path", "follow"), None, 200),
    ("post", "/v1/mkdir", "Make a directory", (), _object(path=_TEXT, parents=_FLAG), 204),
    ("post", "/v1/rename", "Move", (), _object(source=_TEXT, target=_TEXT, overwrite=_FLAG), 204),
    ("post", "/v1/chmod", "Set permissions", (), _object(path=_TEXT, mode=_TEXT), 204),
    ("get", "/v1/search", "Find files and lines", ("path", "name", "content", "limit"), None, 200),
    ("get", "/v1/watch", "WebSocket: changes below a directory", ("path", "recursive"), None, 101),
    ("put", "/v1/uploads/{id}", "Add a part", ("path", "offset", "final", "sha256", "mode"), None, 200),
    ("get", "/v1/uploads/{id}", "Where the next part begins", (), None, 200),
    ("delete", "/v1/uploads/{id}", "Discard what arrived", (), None, 204),
    ("get", "/v1/ports", "TCP ports that listen", (), None, 200),
    ("get", "/v1/ports/{number}/wait", "Wait until a port listens", ("timeout",), None, 200),
)


def document() -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, dict[str, Any]] = {}
    for method, path, summary, query, body, status in _OPERATIONS:
        paths.setdefault(path, {})[method] = _operation(path, summary, query, body, status)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Agent Sandbox daemon", "version": "1"},
        "paths": paths,
        "components": {
            "schemas": {"Process": _PROCESS, "Error": _object(code=_TEXT, message=_TEXT)},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(
    path: str, summary: str, query: tuple[str, ...], body: dict[str, Any] | None, status: int
) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _TEXT} for name in re.findall(r"{(\w+)}", path)
    ]
    parameters += [{"name": name, "in": "query", "required": name == "path", "schema": _TEXT} for name in query]
    error = {"description": "Refused", "content": _json({"$ref": "#/components/schemas/Error"})}
    operation: dict[str, Any] = {
        "summary": summary,
        "parameters": parameters,
        "responses": {str(status): {"description": summary}, "default": error},
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": _json(body)}
    return operation


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
