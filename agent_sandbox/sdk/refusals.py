"""What a refusal means: the error for an answer of a router, of our daemon, or of a legacy runtime.

In: status, headers and the beginning of a body. Out: one error of ``errors.py``, or the word of a router that the
sandbox saw nothing of the request, which may therefore be sent again.
"""

import json
from collections.abc import Mapping
from typing import Final

from agent_sandbox.sdk.errors import (
    RequestTimeoutError,
    SandboxConnectionError,
    SandboxDiskFullError,
    SandboxError,
    SandboxFileNotFoundError,
    SandboxGoneError,
    SandboxNotReadyError,
    SandboxOutcomeUnknownError,
    SandboxPermissionError,
    SandboxRequestError,
    SandboxTooLargeError,
)

HEADER_ERROR: Final = "X-Sandbox-Error"
"""Set by the router on its own errors, and on nothing that comes from a sandbox."""

UNSENT_REASONS: Final = frozenset({"unreachable", "not-ready", "rate-limited"})
"""Reasons under which the router guarantees that the sandbox saw nothing of the request."""

CREDENTIAL_REASONS: Final = frozenset({"unauthenticated", "forbidden"})
"""Reasons under which the router does not take the credential; the sandbox saw nothing of the request either."""


class UnsentError(Exception):
    """The router says that the sandbox saw nothing of the request; carries what to raise when patience ends."""

    def __init__(self, public: SandboxError, retry_after: float) -> None:
        super().__init__(str(public))
        self.public = public
        self.retry_after = retry_after


def error_for(status: int, headers: Mapping[str, str], body: bytes, request: str) -> Exception:
    """The error that an answer means."""
    code, detail = _read_detail(body)
    reason = headers.get(HEADER_ERROR)
    if reason is not None:
        error = _router_error(reason, status, detail, request)
        if reason in UNSENT_REASONS:
            return UnsentError(error, _retry_after(headers))
        return error
    text = f"{request}: {status} {detail}".rstrip()
    match status, code:
        case (401 | 403, _) | (_, "PERMISSION_DENIED"):
            return SandboxPermissionError(text, status=status, detail=detail, code=code)
        case (404, _):
            return SandboxFileNotFoundError(text, status=status, detail=detail, code=code)
        case (413, _):
            return SandboxTooLargeError(text, status=status, detail=detail, code=code)
        case (507, _):
            return SandboxDiskFullError(text, status=status, detail=detail, code=code)
        case _:
            return SandboxRequestError(text, status=status, detail=detail, code=code)


_STATUS_OF_CODE: Final = {
    "NOT_FOUND": 404,
    "PERMISSION_DENIED": 403,
    "CONFLICT": 409,
    "CHECKSUM_MISMATCH": 422,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
}


def error_for_code(code: str, message: str, request: str) -> Exception:
    """The error that a daemon reports inside a stream, where there is no HTTP status."""
    body = json.dumps({"code": code, "message": message}).encode()
    return error_for(_STATUS_OF_CODE.get(code, 400), {}, body, request)


def _router_error(reason: str, status: int, detail: str, request: str) -> SandboxError:
    text = f"{request}: the router says: {detail or reason}"
    match reason:
        case "not-found":
            return SandboxGoneError(text)
        case "suspended":
            return SandboxNotReadyError(text, reason="SandboxSuspended")
        case "not-ready":
            return SandboxNotReadyError(text)
        case "unreachable":
            return SandboxConnectionError(text)
        case "broken":
            return SandboxOutcomeUnknownError(f"{text}. The request may have been carried out")
        case "timeout":
            return RequestTimeoutError(text)
        case "unauthenticated" | "forbidden":
            hint = "the claim must name this client's key, or the router must take its Kubernetes token or router_token"
            return SandboxPermissionError(f"{text} ({hint})", status=status, detail=detail, code=reason)
        case "too-large":
            return SandboxTooLargeError(text, status=status, detail=detail, code=reason)
        case _:
            return SandboxRequestError(text, status=status, detail=detail, code=reason)


def _read_detail(body: bytes) -> tuple[str, str]:
    """Code and sentence of an error body in any of the forms that routers and runtimes use."""
    try:
        data = json.loads(body)
    except ValueError:
        return "", body[:200].decode("utf-8", "replace").strip()
    if not isinstance(data, dict):
        return "", ""
    sentence = data.get("detail") or data.get("message") or ""
    return str(data.get("code", "")), sentence if isinstance(sentence, str) else json.dumps(sentence)


def _retry_after(headers: Mapping[str, str]) -> float:
    value = headers.get("Retry-After", "")
    return float(value) if value.isdigit() else 0.0


__all__ = ["HEADER_ERROR", "UNSENT_REASONS", "UnsentError", "error_for", "error_for_code"]
