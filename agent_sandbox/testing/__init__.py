"""The public test kit: virtual time, faults on the wire, an API server in memory.

What is here is what our own tests use. Names load their modules when they are first asked for, so that a test which
needs virtual time does not pay for an API server.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from agent_sandbox.testing.apiserver import InMemoryApiServer
    from agent_sandbox.testing.clock import VirtualClock, VirtualTimeLoop, run_in_virtual_time
    from agent_sandbox.testing.faults import Fault, FaultyTransport

__all__ = [
    "Fault",
    "FaultyTransport",
    "InMemoryApiServer",
    "VirtualClock",
    "VirtualTimeLoop",
    "run_in_virtual_time",
]

_MODULES: Final = {
    "Fault": "faults",
    "FaultyTransport": "faults",
    "InMemoryApiServer": "apiserver",
    "VirtualClock": "clock",
    "VirtualTimeLoop": "clock",
    "run_in_virtual_time": "clock",
}


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return __all__
