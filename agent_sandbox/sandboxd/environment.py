"""The environment of commands: what the Pod was given, without what only the daemon needs.

A launcher starts the daemon with variables of its own (PYTHONPATH to the daemon's code, for example). A command that
inherited them would import the daemon's packages instead of its own, so they are taken out by name.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Final

from agent_sandbox.sandboxd.options import ALWAYS_OWN_VARIABLES

OWN_PREFIX: Final = "SANDBOXD_"
RESTORED_PREFIX: Final = "SANDBOXD_ENV_"
"""``SANDBOXD_ENV_PATH=x`` gives commands ``PATH=x``: for variables that the launcher had to overwrite."""

OWN_VARIABLES_NAME: Final = "SANDBOXD_OWN_VARIABLES"
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def command_environment(
    inherited: Mapping[str, str], *, own_variables: Iterable[str] = (), home: str = "/"
) -> dict[str, str]:
    """The variables that every command starts from.

    Args:
        inherited: the daemon's own environment.
        own_variables: further names to hide; ``SANDBOXD_OWN_VARIABLES`` (comma separated) in `inherited` adds more.
        home: value of HOME where none was inherited.
    """
    listed = inherited.get(OWN_VARIABLES_NAME, "").split(",")
    hidden = {*ALWAYS_OWN_VARIABLES, *own_variables, *(name.strip() for name in listed)}
    environment = {
        name: value for name, value in inherited.items() if name not in hidden and not name.startswith(OWN_PREFIX)
    }
    for name, value in inherited.items():
        if name.startswith(RESTORED_PREFIX) and name != RESTORED_PREFIX:
            environment[name.removeprefix(RESTORED_PREFIX)] = value
    environment.setdefault("PATH", DEFAULT_PATH)
    environment.setdefault("HOME", home)
    return environment


def inherited_environment() -> dict[str, str]:
    """A copy of this process's environment."""
    return dict(os.environ)
