"""What the daemon can be told: one frozen set of options, each with its unit, its default and the reason for it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

ALWAYS_OWN_VARIABLES: Final = (
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONPLATLIBDIR",
    "PYTHONSTARTUP",
    "PYTHONUSERBASE",
    "VIRTUAL_ENV",
)
"""Variables that make the daemon's interpreter work and would make the user's interpreter load the daemon's code."""

MIB: Final = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class SandboxdOptions:
    """Options of the daemon.

    Attributes:
        host: address to listen on. Loopback by default; a Pod needs its own address or ``0.0.0.0``.
        port: TCP port; 0 takes a free one.
        root: the workspace. Relative paths of the file API and the commands' working directory start here. It is made
            if it does not exist.
        allowed_roots: further directories that the file API may touch when a caller names them absolutely.
        token_file: file with a bearer token (surrounding white space is ignored) that every request must carry, except
            ``GET /`` and ``/healthz``. None means that the network policy is the only guard.
        max_upload_bytes: largest accepted upload; None leaves it to the disk.
        max_output_bytes: what is kept of stdout and of stderr each; the rest is read, counted and dropped. 10 MiB
            fits what an agent can use, and bounds the daemon's memory at twice that per command.
        max_body_bytes: largest JSON body, standard input for a command included.
        max_processes: commands running at once; one more is refused.
        default_timeout: seconds until a command that named no timeout is killed; None means never.
        max_timeout: upper bound of a command's own timeout, in seconds; None means none.
        shutdown_grace: seconds between SIGTERM and SIGKILL for commands when the daemon stops. It must stay below the
            Pod's terminationGracePeriodSeconds (30 by default).
        operation_ttl: seconds that the outcome of a finished operation is kept for a repeated request.
        own_variables: names of variables that were set for the daemon and are hidden from commands, besides
            `ALWAYS_OWN_VARIABLES` and everything called ``SANDBOXD_*``.
        init: whether the daemon has the duties of PID 1 (reaping orphans). None finds out.
    """

    host: str = "127.0.0.1"
    port: int = 8888
    root: Path = Path("/workspace")
    allowed_roots: tuple[Path, ...] = (Path("/tmp"),)  # noqa: S108 - the sandbox's own /tmp, which the seed's example uses
    token_file: Path | None = None
    max_upload_bytes: int | None = None
    max_output_bytes: int = 10 * MIB
    max_body_bytes: int = 16 * MIB
    max_processes: int = 256
    default_timeout: float | None = None
    max_timeout: float | None = None
    shutdown_grace: float = 10.0
    operation_ttl: float = 600.0
    own_variables: tuple[str, ...] = ()
    init: bool | None = None
