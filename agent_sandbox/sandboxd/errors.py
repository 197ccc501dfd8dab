"""What can go wrong in the daemon, as one tree; each error knows its HTTP status and its code of the versioned API.

SandboxdError
|-- InvalidRequestError     the caller's request makes no sense            400 INVALID_ARGUMENT
|-- UnauthenticatedError    no token, or the wrong one                     401 UNAUTHENTICATED
|-- ForeignPageError        a web page of another origin asks             403 PERMISSION_DENIED
|-- PathDeniedError         the path leaves the allowed directories        403 PERMISSION_DENIED
|-- PathNotFoundError       nothing there                                  404 NOT_FOUND
|-- ConflictError           something is in the way                        409 CONFLICT
|-- TooLargeError           more than a limit allows                       413 RESOURCE_EXHAUSTED
|-- ChecksumMismatchError   what arrived is not what was announced         422 CHECKSUM_MISMATCH
|-- ExhaustedError          too many processes                             429 RESOURCE_EXHAUSTED
|-- StoppingError           the daemon is on its way out                   503 UNAVAILABLE
`-- DiskFullError           no space left                                  507 RESOURCE_EXHAUSTED
"""

from typing import ClassVar


class SandboxdError(Exception):
    """Base of everything the daemon refuses or fails to do."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "INTERNAL"


class InvalidRequestError(SandboxdError):
    """The request makes no sense; the message names the field and what it should be."""

    status = 400
    code = "INVALID_ARGUMENT"


class UnauthenticatedError(SandboxdError):
    """A token is configured, and the request carries none or another."""

    status = 401
    code = "UNAUTHENTICATED"


class ForeignPageError(SandboxdError):
    """A web page of another origin made the request, in the browser of somebody who reaches this daemon."""

    status = 403
    code = "PERMISSION_DENIED"


class PathDeniedError(SandboxdError):
    """The path leads out of the workspace and of every other allowed directory."""

    status = 403
    code = "PERMISSION_DENIED"


class PathNotFoundError(SandboxdError):
    """There is nothing of the wanted kind at this path."""

    status = 404
    code = "NOT_FOUND"


class ProcessNotFoundError(PathNotFoundError):
    """No process has this identifier; it never did, or it was forgotten."""


class ConflictError(SandboxdError):
    """Something that exists is in the way."""

    status = 409
    code = "CONFLICT"


class TooLargeError(SandboxdError):
    """More bytes than a limit allows."""

    status = 413
    code = "RESOURCE_EXHAUSTED"


class ChecksumMismatchError(SandboxdError):
    """The received bytes do not have the announced checksum; nothing was replaced."""

    status = 422
    code = "CHECKSUM_MISMATCH"


class ExhaustedError(SandboxdError):
    """As many commands as allowed are running; wait for one to end, or stop one."""

    status = 429
    code = "RESOURCE_EXHAUSTED"


class StoppingError(SandboxdError):
    """The daemon is shutting down and starts nothing new."""

    status = 503
    code = "UNAVAILABLE"


class DiskFullError(SandboxdError):
    """The disk or the quota of the sandbox is full."""

    status = 507
    code = "RESOURCE_EXHAUSTED"
