"""Agent Sandbox: isolated, stateful, instantly ready computers for AI agents.

>>> from agent_sandbox import SandboxClient
>>> with SandboxClient(template_name="python-sandbox-template") as sandbox:  # doctest: +SKIP
...     print(sandbox.run("python -c 'print(42)'").stdout)

What is exported here is what an agent imports (``agent_sandbox.sdk``); it is loaded when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent_sandbox.sdk import (
        AsyncCommands,
        AsyncComputerUseExtension,
        AsyncFiles,
        AsyncPorts,
        AsyncProcess,
        AsyncSandbox,
        AsyncSandboxClient,
        AsyncSandboxes,
        Commands,
        CommandTimeoutError,
        ComputerUseExtension,
        ComputerUseSandbox,
        ComputerUseSandboxClient,
        ConnectionOptions,
        ExecutionResult,
        FileEntry,
        FileEvent,
        Files,
        Finding,
        GatewayTimeoutError,
        Output,
        PoolInfo,
        Ports,
        Process,
        ProcessInfo,
        RequestTimeoutError,
        Sandbox,
        SandboxChange,
        SandboxClaimFailedError,
        SandboxCleanupError,
        SandboxClient,
        SandboxConfigError,
        SandboxConnectionError,
        SandboxDiskFullError,
        SandboxError,
        Sandboxes,
        SandboxFileNotFoundError,
        SandboxGoneError,
        SandboxInfo,
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
        SandboxState,
        SandboxStatus,
        SandboxTemplateNotFoundError,
        SandboxTimeoutError,
        SandboxTooLargeError,
        SandboxWarmPoolNotFoundError,
        SearchMatch,
        SyncReport,
        TemplateInfo,
        Terminal,
        TransferProgress,
        TransferReport,
        UnsupportedByRuntimeError,
        diagnose,
    )

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


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from agent_sandbox import sdk

    value = getattr(sdk, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
