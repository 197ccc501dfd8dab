"""How programs find a running local stack: a small record file in the stack's state directory.

In: where the API server and the router of this process listen. Out: the same for every other process of this user,
or None if no stack runs. Only the standard library is used, so that the SDK may read it for free.

A record outlives a killed stack. It is recognised as stale by the process's id together with its start time, so that
a stranger who later got the same id is not taken for the stack.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

RECORD_FILE: Final = "stack.json"
RECORD_VERSION: Final = 1
STATE_DIR_VARIABLE: Final = "AGENT_SANDBOX_STATE_DIR"
STACK_VARIABLE: Final = "AGENT_SANDBOX_STACK"
LOCAL_VARIABLE: Final = "AGENT_SANDBOX_LOCAL"
LOCAL_DOMAIN: Final = "localhost"
"""Domain of the local router's hosts: every name below it is this machine (RFC 6761, 6.3), for browsers without DNS."""


class StackRecordError(RuntimeError):
    """The record cannot be read: another version wrote it, or it is damaged."""


def default_state_dir(environ: Mapping[str, str] | None = None, name: str | None = None) -> Path:
    """Where the stack of that name keeps everything.

    ``$AGENT_SANDBOX_STATE_DIR``, else ``$XDG_STATE_HOME/agent-sandbox/<name>``, else the same in ~/.local/state. The
    name is ``$AGENT_SANDBOX_STACK``, or ``default``, if none is given.
    """
    variables = os.environ if environ is None else environ
    if chosen := variables.get(STATE_DIR_VARIABLE):
        return Path(chosen).expanduser()
    base = variables.get("XDG_STATE_HOME", "")
    # The XDG specification says that a relative path is to be ignored.
    state_home = Path(base) if base.startswith("/") else Path("~/.local/state").expanduser()
    return state_home / "agent-sandbox" / (name or variables.get(STACK_VARIABLE) or "default")


@dataclass(frozen=True)
class Endpoint:
    """Where one part of the stack listens.

    Attributes:
        url: its base URL.
        token_file: file with the credential to send; None if it wants none.
        ca_file: certificate authority of an https URL; None for plain http.
    """

    url: str
    token_file: Path | None = None
    ca_file: Path | None = None

    def read_token(self) -> str | None:
        """The credential, or None if this endpoint wants none.

        Raises:
            OSError: the file cannot be read.
        """
        return None if self.token_file is None else self.token_file.read_text(encoding="utf-8").strip()

    def to_json(self) -> dict[str, str]:
        """The form in the record; unset files are left out."""
        paths = {"token_file": self.token_file, "ca_file": self.ca_file}
        return {"url": self.url, **{key: str(path) for key, path in paths.items() if path is not None}}

    @classmethod
    def from_json(cls, data: Mapping[str, str]) -> Self:
        """Read the form of the record."""
        token_file, ca_file = data.get("token_file"), data.get("ca_file")
        return cls(
            url=data["url"],
            token_file=Path(token_file) if token_file else None,
            ca_file=Path(ca_file) if ca_file else None,
        )


@dataclass(frozen=True)
class StackRecord:
    """A stack that runs, or ran, on this machine.

    Attributes:
        pid: its process.
        process_start: identity of that process beside its id, see ``process_start``; empty if unknown.
        started: when it came up.
        api: the Kubernetes API.
        router: the data plane's front door.
        kubeconfig: a kubeconfig for kubectl and other clients.
    """

    pid: int
    process_start: str
    started: datetime
    api: Endpoint
    router: Endpoint
    kubeconfig: Path

    @classmethod
    def of_this_process(cls, *, started: datetime, api: Endpoint, router: Endpoint, kubeconfig: Path) -> Self:
        """The record of the calling process."""
        pid = os.getpid()
        return cls(pid, process_start(pid), started, api, router, kubeconfig)

    def is_running(self) -> bool:
        """True if the process that wrote this record still lives."""
        if self.pid <= 0:
            return False
        if self.process_start:
            return process_start(self.pid) == self.process_start
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return False  # a stranger has this id now: our own stack may be signalled
        return True

    def write(self, state_dir: Path) -> None:
        """Write the record, readable by this user only, so that no reader ever sees half of it."""
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{RECORD_FILE}.", dir=state_dir)  # mode 0600 from the start
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(self.to_json(), file, indent=2)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(state_dir / RECORD_FILE)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def remove(self, state_dir: Path) -> None:
        """Remove the record if it is still this one; the record of a newer stack stays."""
        with suppress(StackRecordError):
            if StackRecord.read(state_dir) == self:
                (state_dir / RECORD_FILE).unlink(missing_ok=True)

    def to_json(self) -> dict[str, Any]:
        """The form in the file."""
        return {
            "version": RECORD_VERSION,
            "pid": self.pid,
            "process_start": self.process_start,
            "started": self.started.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "api": self.api.to_json(),
            "router": self.router.to_json(),
            "kubeconfig": str(self.kubeconfig),
        }

    @classmethod
    def read(cls, state_dir: Path) -> Self | None:
        """The record in that directory, stale or not; None if there is none.

        Raises:
            StackRecordError: there is one, but it is damaged or of another version.
        """
        path = state_dir / RECORD_FILE
        try:
            text = path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise StackRecordError(f"cannot read {path}: {error}") from error
        try:
            data = json.loads(text)
            if data["version"] != RECORD_VERSION:
                raise StackRecordError(
                    f"{path} has version {data['version']}, this program reads {RECORD_VERSION}: "
                    "stop the stack with the program that started it, or remove the file"
                )
            return cls(
                pid=int(data["pid"]),
                process_start=str(data.get("process_start", "")),
                started=datetime.fromisoformat(data["started"]),
                api=Endpoint.from_json(data["api"]),
                router=Endpoint.from_json(data["router"]),
                kubeconfig=Path(data["kubeconfig"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise StackRecordError(
                f"{path} is damaged ({error!r}): remove it, or run `agent-sandbox local up`"
            ) from error


def find_running_stack(state_dir: Path | None = None) -> StackRecord | None:
    """The stack that runs in that state directory (the default one if None), or None.

    Raises:
        StackRecordError: there is a record, but it is damaged or of another version.
    """
    record = StackRecord.read(state_dir or default_state_dir())
    return record if record is not None and record.is_running() else None


def process_start(pid: int) -> str:
    """Identity of a process beside its id: the boot and the clock tick in which it started.

    Empty where the system does not tell (no ``/proc``), and for a process that does not exist or is a zombie.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
    # The command's name stands in parentheses and may hold anything, so the fields are counted from its end:
    # state is the first of them, the start time (proc(5), field 22) the twentieth.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return "" if fields[0] == b"Z" else f"{boot}/{int(fields[19])}"


__all__ = [
    "LOCAL_VARIABLE",
    "RECORD_FILE",
    "STACK_VARIABLE",
    "STATE_DIR_VARIABLE",
    "Endpoint",
    "StackRecord",
    "StackRecordError",
    "default_state_dir",
    "find_running_stack",
    "process_start",
]
