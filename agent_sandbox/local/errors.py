"""What can go wrong with a local stack as a whole.

LocalError
├── ForeignDirectoryError   the state directory is somebody else's
├── StackRunningError   another process owns the state directory
├── StackNotRunningError   nothing runs there
├── StackFailedError    it stopped before it was ready
└── PortInUseError      somebody else listens on a port of ours
"""

from pathlib import Path


class LocalError(Exception):
    """Base of the errors of the local stack."""


class ForeignDirectoryError(LocalError):
    """The directory holds something, and no stack ever used it."""

    def __init__(self, directory: Path, advice: str) -> None:
        super().__init__(f"{directory} holds other things than a stack's: {advice}.")


class StackRunningError(LocalError):
    """Another process owns the state directory; stop it first, or use another name."""

    def __init__(self, directory: Path, owner: str) -> None:
        super().__init__(
            f"a stack already runs in {directory} (process {owner or 'unknown'}). "
            "Stop it with `agent-sandbox local down`, or start another one beside it with `--name`."
        )


class StackNotRunningError(LocalError):
    """Nothing runs in the state directory."""

    def __init__(self, directory: Path, words: str = "") -> None:
        super().__init__(f"no stack runs in {directory}. Start one: agent-sandbox local up --background{words}")


class StackFailedError(LocalError):
    """The stack stopped before it was ready."""

    def __init__(self, log: Path, last_lines: str, *, full: bool = False) -> None:
        room = (
            f"\nThe disk of {log.parent} is full: make room there, or name another with `--state-dir`." if full else ""
        )
        super().__init__(f"the stack stopped before it was ready; the end of {log} says:\n{last_lines}{room}")


class PortInUseError(LocalError):
    """Somebody else listens on a port that the stack wants."""

    def __init__(self, what: str, port: int, option: str, *, zero_is_free: bool = True) -> None:
        super().__init__(
            f"port {port} of 127.0.0.1, wanted for {what}, is in use. "
            f"Stop the process that holds it, or choose another port with `{option}`"
            f"{' (0 takes a free one)' if zero_is_free else ''}."
        )
