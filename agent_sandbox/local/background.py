"""Starts a stack as a process of its own, learns when it is ready, and stops it.

The child tells that it is ready through a pipe; if it dies before, the pipe closes, and the end of its log is the
error. Nothing is polled.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from agent_sandbox.local.directory import StateDirectory
from agent_sandbox.local.errors import StackFailedError, StackRunningError
from agent_sandbox.local.state import StackRecord

_LAST_LINES = 15
_TOO_LITTLE = 1024 * 1024
"""Bytes; with less, neither the objects nor the reason of the failure could be written."""


def start_in_background(directory: StateDirectory, arguments: Sequence[str]) -> StackRecord:
    """Start `agent-sandbox local up` detached from this terminal and wait until it is ready.

    Raises:
        StackRunningError: a stack already owns the directory.
        StackFailedError: the stack ended before it was ready.
    """
    if (owner := directory.owner()) is not None:
        raise StackRunningError(directory.root, str(owner))
    directory.create()
    read_end, write_end = os.pipe()
    try:
        with directory.log.open("ab") as log:
            log_start = log.tell()
            subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", "agent_sandbox", "local", "up", "--quiet", "--state-dir", str(directory.root),
                 *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, pass_fds=(write_end,), cwd="/",
                env={**os.environ, "AGENT_SANDBOX_READY_FD": str(write_end)},
            )  # fmt: skip
        os.close(write_end)
        write_end = -1
        told = os.read(read_end, 64)
    finally:
        os.close(read_end)
        if write_end >= 0:
            os.close(write_end)
    record = StackRecord.read(directory.root) if told else None
    if record is None:
        full = shutil.disk_usage(directory.root).free < _TOO_LITTLE
        raise StackFailedError(directory.log, _end_of_log(directory, log_start), full=full)
    return record


def _end_of_log(directory: StateDirectory, start: int) -> str:
    with directory.log.open("rb") as log:
        log.seek(start)
        lines = log.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-_LAST_LINES:]) or "(nothing)"


def end_left_behind(directory: StateDirectory) -> bool:
    """End the Pods that outlived a killed stack of this directory. False if there are none, or a stack runs."""
    if not directory.helper.exists():
        return False
    from agent_sandbox.local.node.helper_process import end_left_behind as end  # the whole node: not for every command

    with suppress(StackRunningError), directory.owned():
        return end(directory.node)
    return False


def stop(directory: StateDirectory, timeout: float) -> bool:
    """Stop the stack that owns the directory, and kill it after `timeout` seconds. False if none runs."""
    owner = directory.owner()
    if owner is None:
        return False
    try:
        process = os.pidfd_open(owner)
    except ProcessLookupError:
        return False
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        gone, _, _ = select.select([process], [], [], timeout)
        if not gone:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [], timeout)
    except ProcessLookupError:
        return True
    finally:
        os.close(process)
    return True
