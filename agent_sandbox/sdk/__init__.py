"""What an agent imports: a client that gives it a sandbox, and handles to work in one.

In: the name of a SandboxTemplate. Out: a sandbox to run commands in and to keep files in, deleted when the work is
done, whichever way it ends. The asynchronous classes are the core; the synchronous ones are generated from them.
Nothing is loaded before it is asked for: importing this package costs neither aiohttp nor a client of Kubernetes.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from agent_sandbox.sdk.catalog import PoolInfo, TemplateInfo
    from agent_sandbox.sdk.client import AsyncSandboxClient
    from agent_sandbox.sdk.commands import AsyncCommands
    from agent_sandbox.sdk.computer_use import AsyncComputerUseExtension
    from agent_sandbox.sdk.diagnosis import Finding, diagnose
    from agent_sandbox.sdk.errors import (
        CommandTimeoutError,
        GatewayTimeoutError,
        RequestTimeoutError,
        SandboxClaimFailedError,
        SandboxCleanupError,
        SandboxConfigError,
        SandboxConnectionError,
        SandboxDiskFullError,
        SandboxError,
        SandboxFileNotFoundError,
        SandboxGoneError,
        SandboxNotFoundError,
        SandboxNotReadyError,
        SandboxOutcomeUnknownError,
        SandboxPermissionError,
        SandboxPodFailedError,
        SandboxPortForwardError,
        SandboxProcessNotFoundError,
        SandboxProtocolError,
        SandboxReadyTimeoutError,
        SandboxRequestError,
        SandboxTemplateNotFoundError,
        SandboxTimeoutError,
        SandboxTooLargeError,
        SandboxWarmPoolNotFoundError,
        UnsupportedByRuntimeError,
    )
    from agent_sandbox.sdk.files import AsyncFiles
    from agent_sandbox.sdk.options import ConnectionOptions
    from agent_sandbox.sdk.ports import AsyncPorts
    from agent_sandbox.sdk.process import AsyncProcess
    from agent_sandbox.sdk.results import (
        ExecutionResult,
        FileEntry,
        FileEvent,
        Output,
        ProcessInfo,
        SandboxChange,
        SandboxInfo,
        SandboxState,
        SandboxStatus,
        SearchMatch,
        SyncReport,
        Terminal,
        TransferProgress,
        TransferReport,
    )
    from agent_sandbox.sdk.sandbox import AsyncSandbox
    from agent_sandbox.sdk.sandboxes import AsyncSandboxes
    from agent_sandbox.sdk.sync.client import SandboxClient
    from agent_sandbox.sdk.sync.commands import Commands
    from agent_sandbox.sdk.sync.computer_use import ComputerUseExtension
    from agent_sandbox.sdk.sync.computer_use import ComputerUseExtension as ComputerUseSandbox
    from agent_sandbox.sdk.sync.computer_use import ComputerUseExtension as ComputerUseSandboxClient
    from agent_sandbox.sdk.sync.files import Files
    from agent_sandbox.sdk.sync.ports import Ports
    from agent_sandbox.sdk.sync.process import Process
    from agent_sandbox.sdk.sync.sandbox import Sandbox
    from agent_sandbox.sdk.sync.sandboxes import Sandboxes

__all__ = [
    "AsyncCommands",
    "AsyncComputerUseExtension",
    "AsyncFiles",
    "AsyncPorts",
    "AsyncProcess",
    "AsyncSandbox",
    "AsyncSandboxClient",
    "AsyncSandboxes",
    "CommandTimeoutError",
    "Commands",
    "ComputerUseExtension",
    "ComputerUseSandbox",
    "ComputerUseSandboxClient",
    "ConnectionOptions",
    "ExecutionResult",
    "FileEntry",
    "FileEvent",
    "Files",
    "Finding",
    "GatewayTimeoutError",
    "Output",
    "PoolInfo",
    "Ports",
    "Process",
    "ProcessInfo",
    "RequestTimeoutError",
    "Sandbox",
    "SandboxChange",
    "SandboxClaimFailedError",
    "SandboxCleanupError",
    "SandboxClient",
    "SandboxConfigError",
    "SandboxConnectionError",
    "SandboxDiskFullError",
    "SandboxError",
    "SandboxFileNotFoundError",
    "SandboxGoneError",
    "SandboxInfo",
    "SandboxNotFoundError",
    "SandboxNotReadyError",
    "SandboxOutcomeUnknownError",
    "SandboxPermissionError",
    "SandboxPodFailedError",
    "SandboxPortForwardError",
    "SandboxProcessNotFoundError",
    "SandboxProtocolError",
    "SandboxReadyTimeoutError",
    "SandboxRequestError",
    "SandboxState",
    "SandboxStatus",
    "SandboxTemplateNotFoundError",
    "SandboxTimeoutError",
    "SandboxTooLargeError",
    "SandboxWarmPoolNotFoundError",
    "Sandboxes",
    "SearchMatch",
    "SyncReport",
    "TemplateInfo",
    "Terminal",
    "TransferProgress",
    "TransferReport",
    "UnsupportedByRuntimeError",
    "diagnose",
]

# Where the names live that are not errors; every other name of ``__all__`` is one.
_HOMES: Final = {
    "AsyncCommands": "commands",
    "AsyncComputerUseExtension": "computer_use",
    "AsyncFiles": "files",
    "AsyncPorts": "ports",
    "ComputerUseExtension": "sync.computer_use",
    "Ports": "sync.ports",
    "AsyncProcess": "process",
    "AsyncSandbox": "sandbox",
    "AsyncSandboxClient": "client",
    "AsyncSandboxes": "sandboxes",
    "Commands": "sync.commands",
    "ConnectionOptions": "options",
    "ExecutionResult": "results",
    "Files": "sync.files",
    "Finding": "diagnosis",
    "diagnose": "diagnosis",
    "FileEntry": "results",
    "FileEvent": "results",
    "Output": "results",
    "PoolInfo": "catalog",
    "Process": "sync.process",
    "ProcessInfo": "results",
    "Sandbox": "sync.sandbox",
    "SandboxClient": "sync.client",
    "SandboxChange": "results",
    "SandboxInfo": "results",
    "SandboxState": "results",
    "SandboxStatus": "results",
    "Sandboxes": "sync.sandboxes",
    "SearchMatch": "results",
    "SyncReport": "results",
    "TemplateInfo": "catalog",
    "Terminal": "results",
    "TransferProgress": "results",
    "TransferReport": "results",
}


# What the Go project's Python clients of December 2025 and of today call it.
_ALIASES: Final = {"ComputerUseSandbox": "ComputerUseExtension", "ComputerUseSandboxClient": "ComputerUseExtension"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    name_here = _ALIASES.get(name, name)
    value = getattr(import_module(f"{__name__}.{_HOMES.get(name_here, 'errors')}"), name_here)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
