"""What calls return: plain frozen values."""

from collections.abc import AsyncIterable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Literal


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


OUTPUT_LIMIT: Final = 10 * 2**20
"""Bytes of stdout and of stderr each that a result keeps, unless another limit is given."""

OutputCallback = Callable[[str], object]
"""Gets output as it comes, decoded; may be an async function."""


ProgressCallback = Callable[[int], object]
"""Gets the number of bytes that were transferred so far; may be an async function."""


Source = bytes | str | Path | Iterable[bytes] | AsyncIterable[bytes]
"""What can be uploaded: content (``str`` is text), a local file (``Path``), or pieces as they come."""


@dataclass(frozen=True)
class Output:
    """A piece of a process's output.

    Attributes:
        channel: where it was written; a PTY has ``stdout`` only.
        data: the bytes.
        sequence: number of the piece in this process; a later attachment can begin after it.
    """

    channel: Literal["stdout", "stderr"]
    data: bytes
    sequence: int

    @property
    def text(self) -> str:
        """The bytes as UTF-8; a character cut in two by the piece's end becomes U+FFFD."""
        return self.data.decode("utf-8", "replace")


@dataclass(frozen=True)
class Terminal:
    """Size of a PTY."""

    columns: int = 80
    rows: int = 24


@dataclass(frozen=True)
class ProcessInfo:
    """What the daemon says of a process.

    Attributes:
        id: its name in this sandbox.
        pid: its process id inside the sandbox; None if it could not be started.
        argv: the command.
        state: whether it runs, has ended, or could not be started.
        exit_code: exit status, or minus the number of the signal that ended it; None while it runs.
        timed_out: True if it was killed because of its timeout.
        error: why it could not be started.
        started: when it began.
        finished: when it ended.
        last_sequence: number of its latest piece of output.
    """

    id: str
    pid: int | None
    argv: tuple[str, ...]
    state: Literal["running", "exited", "failed"]
    exit_code: int | None = None
    timed_out: bool = False
    error: str = ""
    started: datetime | None = None
    finished: datetime | None = None
    last_sequence: int = 0


@dataclass(frozen=True)
class FileEntry:
    """A file, a directory or a link in a sandbox.

    Attributes:
        name: its name, without the directory.
        size: bytes.
        type: what it is.
        modified: when its content last changed.
        mode: permissions as octal digits, for example ``0644``; empty if the runtime does not tell.
        path: its whole path, as far as the runtime tells.
        link: True if the name is a link, and the rest tells of what it leads to, as far as the runtime tells.
    """

    name: str
    size: int
    type: Literal["file", "directory", "symlink", "other"]
    modified: datetime
    mode: str = ""
    path: str = ""
    link: bool = False


@dataclass(frozen=True)
class FileEvent:
    """A change that was watched.

    Attributes:
        kind: ``created``, ``modified``, ``deleted``, ``moved``, or ``overflow`` if changes were missed.
        path: what changed.
    """

    kind: str
    path: str


@dataclass(frozen=True)
class SearchMatch:
    """A file that was searched for, or a line in one.

    Attributes:
        path: the file.
        line: number of the line, from 1; None if only names were searched.
        text: the line.
    """

    path: str
    line: int | None = None
    text: str = ""


@dataclass(frozen=True)
class SyncReport:
    """What a directory sync did; paths are relative to both directories.

    Attributes:
        uploaded: written in the sandbox.
        downloaded: written here.
        removed_local: removed here.
        removed_remote: removed in the sandbox.
        conflicts: changed on both sides and left as they are, both.
    """

    uploaded: tuple[str, ...] = ()
    downloaded: tuple[str, ...] = ()
    removed_local: tuple[str, ...] = ()
    removed_remote: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()


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


@dataclass(frozen=True)
class SandboxChange:
    """One change that was watched.

    Attributes:
        kind: what happened.
        info: the sandbox afterwards; its last state if it was deleted.
    """

    kind: Literal["added", "changed", "deleted"]
    info: SandboxInfo


@dataclass(frozen=True)
class TransferProgress:
    """How far a transfer of files is.

    Attributes:
        done: bytes that arrived.
        total: bytes in all.
        path: the file that is being transferred, relative to what was asked for; empty if that is the file.
    """

    done: int
    total: int
    path: str = ""


@dataclass(frozen=True)
class TransferReport:
    """What a transfer of files did.

    Attributes:
        files: how many files arrived.
        bytes: how many bytes.
        skipped: links and other things that are no files, left out; relative paths.
    """

    files: int
    bytes: int
    skipped: tuple[str, ...] = ()


__all__ = [
    "OUTPUT_LIMIT",
    "ExecutionResult",
    "FileEntry",
    "FileEvent",
    "Output",
    "OutputCallback",
    "ProcessInfo",
    "ProgressCallback",
    "SandboxChange",
    "SandboxInfo",
    "SandboxState",
    "SandboxStatus",
    "SearchMatch",
    "Source",
    "SyncReport",
    "Terminal",
    "TransferProgress",
    "TransferReport",
]
