"""Reads JSON bodies into typed requests, and says what is wrong with them in words."""

import json
import math
import shlex
import signal
from collections.abc import Mapping
from typing import Any, Final

from agent_sandbox.sandboxd.errors import InvalidRequestError

MAX_OPERATION_ID: Final = 128


def read_object(body: bytes) -> dict[str, Any]:
    """Decode a JSON object.

    Raises:
        InvalidRequestError: the body is no JSON object.
    """
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"the body is not JSON: {error}") from error
    if not isinstance(decoded, dict):
        raise InvalidRequestError("the body must be a JSON object")
    return decoded


class Fields:
    """Typed access to the fields of a JSON object; null counts as absent."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._body = body

    def text(self, name: str) -> str | None:
        """A string without null bytes."""
        value = self._body.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise InvalidRequestError(f"{name} must be a string")
        if "\0" in value:
            raise InvalidRequestError(f"{name} must not contain a null byte")
        return value

    def required_text(self, name: str) -> str:
        """A string that must be there."""
        value = self.text(name)
        if value is None:
            raise InvalidRequestError(f"{name} is required")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean."""
        value = self._body.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise InvalidRequestError(f"{name} must be true or false")
        return value

    def seconds(self, name: str) -> float | None:
        """A positive, finite number."""
        value = self._body.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise InvalidRequestError(f"{name} must be a positive number of seconds")
        return float(value)

    def number(self, name: str, *, low: int, high: int) -> int | None:
        """A whole number within bounds."""
        value = self._body.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InvalidRequestError(f"{name} must be a whole number from {low} to {high}")
        return value

    def choice(self, name: str, *allowed: str) -> str:
        """One of the allowed strings; the first one is the default."""
        value = self._body.get(name)
        if value is None:
            return allowed[0]
        if value not in allowed:
            raise InvalidRequestError(f"{name} must be one of: {', '.join(allowed)}")
        return str(value)

    def variables(self, name: str) -> dict[str, str]:
        """Environment variables."""
        value = self._body.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise InvalidRequestError(f"{name} must be an object of strings")
        for key, text in value.items():
            if not isinstance(text, str) or not key or "=" in key or "\0" in key + text:
                raise InvalidRequestError(f"{name}: {key!r} is not a valid variable with a string value")
        return value

    def strings(self, name: str) -> list[str] | None:
        """A list of strings, not empty, as for an argument vector."""
        value = self._body.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) and "\0" not in item for item in value):
            raise InvalidRequestError(f"{name} must be a list of strings without null bytes")
        return value

    def nested(self, name: str) -> "Fields | None":
        """An object within the object."""
        value = self._body.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise InvalidRequestError(f"{name} must be an object")
        return Fields(value)

    def user(self, name: str) -> str | int | None:
        """A user: name or number."""
        value = self._body.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            if not 0 <= value < 2**32 - 1:
                raise InvalidRequestError(f"{name} must be a user's name or number")
            return value
        return self.text(name)

    def signal(self, name: str) -> int:
        """A signal: ``SIGTERM``, ``TERM`` or its number."""
        value = self._body.get(name)
        try:
            if isinstance(value, str):
                return signal.Signals["SIG" + value.upper().removeprefix("SIG")].value
            if isinstance(value, int) and not isinstance(value, bool):
                return signal.Signals(value).value
        except (KeyError, ValueError):
            raise InvalidRequestError(f"{name}: there is no signal {value!r}") from None
        raise InvalidRequestError(f"{name} must be a signal's name or number")

    def mode(self, name: str) -> int | None:
        """Permissions as three or four octal digits."""
        return read_mode(self.text(name))

    def operation_id(self) -> str | None:
        """The caller's name for an operation."""
        value = self.text("operation_id")
        if value is not None and not (0 < len(value) <= MAX_OPERATION_ID and value.isprintable()):
            raise InvalidRequestError(f"operation_id must be 1 to {MAX_OPERATION_ID} printable characters")
        return value


def read_mode(text: str | None) -> int | None:
    """Permissions as three or four octal digits.

    Raises:
        InvalidRequestError: it is something else.
    """
    if text is None:
        return None
    if not (3 <= len(text) <= 4 and all(digit in "01234567" for digit in text)):
        raise InvalidRequestError(f"a mode is three or four octal digits, for example 0644, not {text!r}")
    return int(text, 8)


def split_command(command: str | list[str]) -> list[str]:
    """The argument vector of a legacy command: words as a shell would split them, but no shell runs.

    Raises:
        ValueError: unbalanced quotes, or nothing to run.
    """
    argv = shlex.split(command) if isinstance(command, str) else list(command)
    if not argv or not argv[0]:
        raise ValueError("the command is empty")
    return argv
