"""What can go wrong in the controllers beyond what the API server says.

::

    ControllerError
    ├── OptionError        an option is out of its range; fix the call or the flag
    └── StaleCacheError    the server knows something that our cache does not yet: look again soon

Mistakes of users are no exceptions: see ``troubles.py``.
"""


class ControllerError(Exception):
    """Base of this package's errors."""


class OptionError(ControllerError, ValueError):
    """An option's value cannot work."""

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(f"{name} is {value!r}: it must be {allowed}")


class StaleCacheError(ControllerError):
    """The cache has not yet seen what the server told us."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: the cache lags behind the server; the next pass sees it")
