"""Everything that can go wrong between an agent and its sandbox, as one tree.

::

    SandboxError (RuntimeError)
    ├── SandboxConfigError                no cluster, a bad option: fix the call
    ├── SandboxNotFoundError              the claim or the sandbox does not exist
    │   ├── SandboxTemplateNotFoundError  the template does not exist
    │   ├── SandboxWarmPoolNotFoundError  the pool does not exist
    │   └── SandboxGoneError              deleted, expired or died while it was in use
    ├── SandboxNotReadyError              not opened yet, closed already, or suspended
    ├── SandboxClaimFailedError           the cluster said no: reason and message of the condition
    │   └── SandboxPodFailedError         the Pod or one of its containers cannot start or ended
    ├── SandboxTimeoutError (TimeoutError)
    │   ├── SandboxReadyTimeoutError      carries the last condition seen
    │   ├── GatewayTimeoutError           the Gateway has no address
    │   ├── CommandTimeoutError           the command was killed; carries its partial output
    │   └── RequestTimeoutError           no answer in time
    ├── SandboxRequestError               the sandbox or the router refused the request: status and detail
    │   ├── SandboxPermissionError (PermissionError)
    │   ├── SandboxFileNotFoundError (FileNotFoundError)
    │   ├── SandboxProcessNotFoundError   no such process (any more)
    │   ├── SandboxTooLargeError          over a stated limit
    │   ├── SandboxDiskFullError          no space left in the sandbox
    │   └── UnsupportedByRuntimeError     this image speaks only the legacy contract
    ├── SandboxConnectionError (ConnectionError)  unreachable, and nothing was sent: safe to try again
    │   └── SandboxPortForwardError       the tunnel cannot be opened
    ├── SandboxOutcomeUnknownError        sent, but no answer came: it may have happened
    ├── SandboxProtocolError              the answer makes no sense
    └── SandboxCleanupError               the claim could not be deleted: it still exists

Programs written for the Go project's Python client catch ``RuntimeError`` and ``TimeoutError``; both still work.
"""

from typing import Any


class SandboxError(RuntimeError):
    """Base of all errors of this package."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, dict(self.__dict__)))


def _rebuild(kind: type[SandboxError], message: str, state: dict[str, Any]) -> SandboxError:
    """Rebuild an error from its pickle; constructors take keywords, which pickle does not."""
    base = OSError if issubclass(kind, OSError) else RuntimeError
    error: SandboxError = base.__new__(kind, message)
    error.__dict__.update(state)
    return error


class SandboxConfigError(SandboxError):
    """The client cannot work as it was configured."""


class SandboxNotFoundError(SandboxError):
    """The object does not exist."""


class SandboxTemplateNotFoundError(SandboxNotFoundError):
    """The SandboxTemplate does not exist."""


class SandboxWarmPoolNotFoundError(SandboxNotFoundError):
    """The SandboxWarmPool does not exist."""


class SandboxNotReadyError(SandboxError):
    """The sandbox takes no requests now.

    Attributes:
        reason: the condition's reason, or ``NotOpen`` and ``Closed`` when the client itself is.
    """

    def __init__(self, message: str, *, reason: str = "NotReady") -> None:
        super().__init__(message)
        self.reason = reason


class SandboxClaimFailedError(SandboxError):
    """The claim ended in a condition that does not pass by waiting.

    Attributes:
        reason: the condition's reason, for programs.
        condition_message: the condition's message, for people.
    """

    def __init__(self, message: str, *, reason: str, condition_message: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.condition_message = condition_message


class SandboxPodFailedError(SandboxClaimFailedError):
    """The Pod, or a container in it, cannot start or has ended."""


class SandboxGoneError(SandboxNotFoundError):
    """The claim or its sandbox was deleted, expired or died while it was in use.

    Attributes:
        stdout: what the command that it ended had written until then, if it was a command.
        stderr: the same for standard error.
    """

    def __init__(self, message: str, *, stdout: str = "", stderr: str = "") -> None:
        super().__init__(message)
        self.stdout = stdout
        self.stderr = stderr


class SandboxTimeoutError(SandboxError, TimeoutError):
    """Something took longer than it was allowed to."""


class SandboxReadyTimeoutError(SandboxTimeoutError):
    """The sandbox did not become Ready in time.

    Attributes:
        reason: reason of the last Ready condition seen; empty if there was none.
        condition_message: its message.
    """

    def __init__(self, message: str, *, reason: str = "", condition_message: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.condition_message = condition_message


class GatewayTimeoutError(SandboxTimeoutError):
    """The Gateway got no usable address in time."""


class CommandTimeoutError(SandboxTimeoutError):
    """The command ran longer than its timeout.

    Attributes:
        stdout: what it had written until then, as far as the runtime returns that.
        stderr: the same for standard error.
        killed: True if the runtime says that it killed the process group; False if the runtime never answered, so
            that the command may still run.
    """

    def __init__(self, message: str, *, stdout: str = "", stderr: str = "", killed: bool = False) -> None:
        super().__init__(message)
        self.stdout = stdout
        self.stderr = stderr
        self.killed = killed


class RequestTimeoutError(SandboxTimeoutError):
    """No answer came in time."""


class SandboxRequestError(SandboxError):
    """The router or the sandbox refused the request.

    Attributes:
        status: the HTTP status.
        detail: what the other side said.
        code: the machine-readable code of our own daemon and router; empty from others.
    """

    def __init__(self, message: str, *, status: int, detail: str = "", code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail
        self.code = code

    @property
    def status_code(self) -> int:
        """The HTTP status under the name that the Go project's Python client uses."""
        return self.status


class SandboxPermissionError(SandboxRequestError, PermissionError):
    """The credentials or the sandbox's walls do not allow it."""


class SandboxFileNotFoundError(SandboxRequestError, FileNotFoundError):
    """No such file in the sandbox."""


class SandboxProcessNotFoundError(SandboxRequestError):
    """The sandbox knows no such process."""


class SandboxTooLargeError(SandboxRequestError):
    """A body, an output or a file is over a limit; the message states it."""


class SandboxDiskFullError(SandboxRequestError):
    """No space is left in the sandbox."""


class UnsupportedByRuntimeError(SandboxRequestError):
    """The image of this sandbox speaks only the legacy contract, which has no such operation."""


class SandboxConnectionError(SandboxError, ConnectionError):
    """The sandbox cannot be reached, and nothing was sent: trying again is safe."""


class SandboxPortForwardError(SandboxConnectionError):
    """The tunnel through the API server cannot be opened."""


class SandboxOutcomeUnknownError(SandboxError):
    """The request was sent and no answer came: it may have been carried out. It was not repeated."""


class SandboxProtocolError(SandboxError):
    """The other side answered, but not in the protocol."""


class SandboxCleanupError(SandboxError):
    """The claim could not be deleted, so it still exists; the message names it."""


__all__ = [
    "CommandTimeoutError",
    "GatewayTimeoutError",
    "RequestTimeoutError",
    "SandboxClaimFailedError",
    "SandboxCleanupError",
    "SandboxConfigError",
    "SandboxConnectionError",
    "SandboxDiskFullError",
    "SandboxError",
    "SandboxFileNotFoundError",
    "SandboxGoneError",
    "SandboxNotFoundError",
    "SandboxNotReadyError",
    "SandboxOutcomeUnknownError",
    "SandboxPermissionError",
    "SandboxPodFailedError",
    "SandboxPortForwardError",
    "SandboxProcessNotFoundError",
    "SandboxProtocolError",
    "SandboxReadyTimeoutError",
    "SandboxRequestError",
    "SandboxTemplateNotFoundError",
    "SandboxTimeoutError",
    "SandboxTooLargeError",
    "SandboxWarmPoolNotFoundError",
    "UnsupportedByRuntimeError",
]
