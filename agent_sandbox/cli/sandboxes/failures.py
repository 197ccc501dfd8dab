"""What goes wrong, in one line with the next thing to type, and as an exit status.

=======  ==========================================================================================================
status   means
=======  ==========================================================================================================
0        done; with ``run`` and ``exec``: the command's own success
1        it failed (of ``doctor``: a check failed); with ``run`` and ``exec`` this is the command's own status
2        the command line makes no sense
124      ``run``, ``exec``: the command was killed at its ``--timeout``
125      ``run``, ``exec``: agent-sandbox itself failed, or its command line makes no sense
126      ``run``, ``exec``: the command exists and could not be started
127      ``run``, ``exec``: there is no such command
128+N    signal N ended it: the command, or agent-sandbox (130 is Ctrl-C)
=======  ==========================================================================================================
"""

from typing import Final

import click

FAILED: Final = 1
COMMAND_TIMED_OUT: Final = 124
TOOL_FAILED: Final = 125
NOT_STARTABLE: Final = 126
NOT_FOUND: Final = 127
SIGNALLED: Final = 128


class Failure(click.ClickException):
    """A failure as it is shown: one line and an exit status."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_code = status  # type: ignore[misc] # click reads it from the instance


def failure_of(error: BaseException, status: int) -> Failure | None:
    """How an expected error is shown; None for one that is a defect, whose traceback should be seen.

    Args:
        error: what was raised.
        status: the exit status.
    """
    from agent_sandbox.kube import KubeError
    from agent_sandbox.sdk import SandboxError

    if not isinstance(error, SandboxError | KubeError | OSError | TimeoutError):
        return None
    notes = getattr(error, "__notes__", [])
    parts = [part.strip().rstrip(".") for part in (_said(error), next_step(error), *notes) if part]
    message = " ".join(part if part.endswith("?") else f"{part}." for part in parts).removesuffix(".")
    return Failure(message or type(error).__name__, status)


def _said(error: BaseException) -> str:
    """The message, without the numbers that the operating system's errors have."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    return str(error)


def next_step(error: BaseException) -> str:
    """What to type next, where the message itself does not say it."""
    from agent_sandbox import sdk
    from agent_sandbox.kube import AlreadyExistsError, NotFoundError

    match error.__cause__:
        case NotFoundError(details=details) if details.kind == "namespaces":
            return f"Make it (kubectl create namespace {details.name}), or name another with -n"
        case AlreadyExistsError():
            return "Use it (agent-sandbox run NAME -- ...), remove it (agent-sandbox rm NAME), or take another name"

    match error:
        case sdk.SandboxTemplateNotFoundError():
            return "Apply one, for example: agent-sandbox apply -f config/samples"
        case sdk.SandboxWarmPoolNotFoundError():
            return "See the pools: agent-sandbox doctor"
        case sdk.SandboxGoneError() | sdk.SandboxNotFoundError():
            return "See what there is: agent-sandbox ls"
        case sdk.SandboxNotReadyError(reason="SandboxSuspended"):
            return "Type: agent-sandbox resume NAME"
        case sdk.SandboxNotReadyError(reason="NoPod"):
            return "If it is suspended: agent-sandbox resume NAME"
        case sdk.CommandTimeoutError():
            return "Give it longer: --timeout"
        case sdk.SandboxReadyTimeoutError() | sdk.SandboxConnectionError() | sdk.GatewayTimeoutError():
            return "Look for the cause: agent-sandbox doctor"
        case sdk.SandboxFileNotFoundError():
            return "Paths are relative to the workspace: agent-sandbox run NAME -- ls"
        case sdk.SandboxPermissionError(code="unauthenticated" | "forbidden" | "Unauthorized" | "Forbidden"):
            return "Check the credential: agent-sandbox doctor"
        case sdk.UnsupportedByRuntimeError() | sdk.SandboxConfigError():
            return ""
        case _:
            return ""


def note(text: str) -> None:
    """Tell something beside the output."""
    click.echo(text, err=True)


def show(error: Exception) -> None:
    """Show an error without ending, for verbs that go on with the next name."""
    click.echo(f"Error: {error}", err=True)
