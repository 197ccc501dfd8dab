"""What calls return: plain frozen values."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal


@dataclass
class ExecutionResult:
    """How a command ended.

    The first three fields, and their order, are those of the Go project's Python client.

    Attributes:
        stdout: standard output as text; bytes that are no UTF-8 become U+FFFD.
        stderr: standard error, likewise.
        exit_code: the exit status, or minus the number of the signal that ended the process.
        stdout_truncated: True if the runtime dropped the end of stdout because of its limit.
        stderr_truncated: the same for stderr.
        duration: seconds that the command ran, as the runtime measured them; None if it does not say.
        stdout_bytes: the same output byte for byte where the runtime sent bytes, else its text encoded as UTF-8.
        stderr_bytes: the same for stderr.
    """

    stdout: str
    stderr: str
    exit_code: int
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    duration: float | None = None
    stdout_bytes: bytes = field(default=b"", repr=False, compare=False)
    stderr_bytes: bytes = field(default=b"", repr=False, compare=False)


SandboxState = Literal["Pending", "Ready", "Suspended", "Failed", "Deleting"]


@dataclass(frozen=True)
class SandboxStatus:
    """What the cluster says about a sandbox now.

    Attributes:
        state: one word for people and programs.
        reason: reason of the Ready condition, for programs.
        message: its message, for people.
        pod_ips: addresses of the Pod; empty while there is none.
        created: when the claim was made.
        expires: when the claim will expire; None if never.
    """

    state: SandboxState
    reason: str = ""
    message: str = ""
    pod_ips: tuple[str, ...] = ()
    created: datetime | None = None
    expires: datetime | None = None


@dataclass(frozen=True)
class SandboxInfo:
    """One line of a listing.

    Attributes:
        claim_name: name of the SandboxClaim; what ``connect`` takes.
        namespace: its namespace.
        template_name: the template that it was made from.
        sandbox_name: name of the Sandbox; empty until it is bound.
        status: what the cluster said when the listing was made.
        labels: labels of the claim.
    """

    claim_name: str
    namespace: str
    template_name: str
    sandbox_name: str
    status: SandboxStatus
    labels: dict[str, str]


__all__ = ["ExecutionResult", "SandboxInfo", "SandboxState", "SandboxStatus"]
