"""The daemon's command line: flags into options, then serve."""

import argparse
import math
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from agent_sandbox.sandboxd.options import MIB, SandboxdOptions

DESCRIPTION: Final = """\
The daemon inside a sandbox: runs commands and moves files for an agent, over HTTP.

It speaks the contract of the original Agent Sandbox runtime: GET /, POST /execute, POST /upload, GET /download/PATH,
GET /list/PATH, GET /exists/PATH; and /healthz for probes. Commands run without a shell, each in a process group of its
own that is killed as a whole when its time is over or its client goes away. The file API stays inside the root and the
other allowed directories, whatever symbolic links say.
"""

EPILOG: Final = """\
examples:
  python -m agent_sandbox.sandboxd --root /tmp/work              on this machine, to try it
  python -m agent_sandbox.sandboxd --host 0.0.0.0                in a Pod, guarded by its NetworkPolicy
  python -m agent_sandbox.sandboxd --host 0.0.0.0 --token-file /run/secrets/sandbox/token

  curl localhost:8888/execute -d '{"command": "python -c \\"print(42)\\"", "timeout": 10}'
  curl localhost:8888/upload -F 'file=@notes.txt;filename=/tmp/notes.txt'
  curl localhost:8888/download/%2Ftmp%2Fnotes.txt

environment:
  SANDBOXD_OWN_VARIABLES=A,B   variables set for the daemon only; commands do not see them. Never seen by commands:
                               PYTHONPATH, PYTHONHOME, PYTHONSTARTUP, PYTHONUSERBASE, PYTHONPLATLIBDIR, VIRTUAL_ENV
                               and everything that starts with SANDBOXD_.
  SANDBOXD_ENV_NAME=value      gives commands the variable NAME, where the launcher had to set another value.

As PID 1 it also reaps orphans. SIGTERM is passed to all commands; what still runs after the grace is killed.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon until it is told to stop; gives the exit code."""
    try:
        options = parse(arguments)
        _run(options)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"sandboxd cannot start: {error}\n")
        return 1
    except ExceptionGroup as group:
        failures = group.split((OSError, ValueError))
        if failures[0] is None or failures[1] is not None:
            raise
        sys.stderr.write(f"sandboxd cannot start: {_first(failures[0])}\n")
        return 1
    return 0


def _run(options: SandboxdOptions) -> None:
    import anyio

    from agent_sandbox.sandboxd.app import serve_until_signalled
    from agent_sandbox.sandboxd.logs import configure_logging
    from agent_sandbox.tracing import export_spans

    _unignore_signals()
    configure_logging()
    with export_spans("sandboxd"):
        anyio.run(serve_until_signalled, options)


def _unignore_signals() -> None:
    """Let commands react to signals that whoever started the daemon ignores (``nohup``, a shell's ``&``).

    Ignored signals stay ignored through exec, handled ones do not; so each gets a handler that does nothing.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def parse(arguments: Sequence[str] | None = None) -> SandboxdOptions:
    """Read the flags; exits with a usage message when they are wrong."""
    defaults = SandboxdOptions()
    parser = argparse.ArgumentParser(
        prog="sandboxd", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = parser.add_argument_group("where")
    where.add_argument("--host", default=defaults.host, help="address to listen on (default %(default)s)")
    where.add_argument("--port", type=_port, default=defaults.port, help="TCP port, 0 for a free one (%(default)s)")
    where.add_argument("--root", type=Path, default=defaults.root, help="the workspace, made if missing (%(default)s)")
    where.add_argument(
        "--allow-root", type=Path, action="append", metavar="DIR", dest="allowed_roots",
        help="further directory for the file API; may be repeated (default /tmp)",
    )  # fmt: skip
    guard = parser.add_argument_group("who")
    guard.add_argument("--token-file", type=Path, help="bearer token that requests must carry (default: none asked)")
    guard.add_argument(
        "--own-variable", action="append", default=[], metavar="NAME", dest="own_variables",
        help="variable of the daemon that commands must not see; may be repeated",
    )  # fmt: skip
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--max-output-mib", type=_positive, default=defaults.max_output_bytes // MIB,
        help="kept of stdout and of stderr each, in MiB (%(default)s)",
    )  # fmt: skip
    limits.add_argument("--max-upload-mib", type=_positive, help="largest upload in MiB (default: the disk decides)")
    limits.add_argument(
        "--max-processes", type=_positive, default=defaults.max_processes, help="commands at once (%(default)s)"
    )
    limits.add_argument("--default-timeout", type=_seconds, help="seconds for commands that name no timeout (none)")
    limits.add_argument("--max-timeout", type=_seconds, help="upper bound of a command's timeout in seconds (none)")
    limits.add_argument(
        "--shutdown-grace", type=_grace, default=defaults.shutdown_grace,
        help="seconds between SIGTERM and SIGKILL for commands at the end (%(default)s)",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    return SandboxdOptions(
        host=given.host,
        port=given.port,
        root=given.root.absolute(),
        allowed_roots=tuple(given.allowed_roots or defaults.allowed_roots),
        token_file=given.token_file,
        own_variables=tuple(given.own_variables),
        max_output_bytes=given.max_output_mib * MIB,
        max_upload_bytes=None if given.max_upload_mib is None else given.max_upload_mib * MIB,
        max_processes=given.max_processes,
        default_timeout=given.default_timeout,
        max_timeout=given.max_timeout,
        shutdown_grace=given.shutdown_grace,
    )


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return port


def _positive(text: str) -> int:
    number = int(text)
    if number <= 0:
        raise argparse.ArgumentTypeError("must be a whole number above 0")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError("must be a number of seconds above 0")
    return number


def _grace(text: str) -> float:
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError("must be a number of seconds, 0 or more")
    return number


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
