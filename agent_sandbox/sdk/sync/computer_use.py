"""Sandboxes with an agent of their own inside, which operates a browser: the ``/agent`` runtime.

Generated from ``agent_sandbox/sdk/computer_use.py`` by ``hack/generate_sync_sdk.py``; do not edit.
"""

from typing import ClassVar

from agent_sandbox.sdk.computer_use import AsyncComputerUseExtension
from agent_sandbox.sdk.results import ExecutionResult
from agent_sandbox.sdk.sync.client import SandboxClient


class ComputerUseExtension(SandboxClient):
    """A sandbox for the length of a ``with`` block, whose runtime carries out tasks told in plain words.

    >>> def main() -> None:
    ...     with ComputerUseExtension("sandbox-python-computeruse-template") as sandbox:
    ...         print((sandbox.agent("find the cheapest flight to Oslo", timeout=600)).stdout)

    Everything that ``SandboxClient`` has is here too.
    """

    _inner: AsyncComputerUseExtension
    _core: ClassVar[type[AsyncComputerUseExtension]] = AsyncComputerUseExtension

    def agent(self, query: str, timeout: float | None = 60, *, api_key: str | None = None) -> ExecutionResult:
        """Let the agent in the sandbox carry out a task. It is asked once, never again by itself.

        Args:
            query: the task.
            timeout: seconds to wait for the answer; a runtime that knows no timeouts may go on working after it.
            api_key: key of the model; without, the runtime uses the one in its environment.

        Raises:
            CommandTimeoutError: no answer in time.
            SandboxError: the sandbox cannot be reached, is gone, or refused.
        """
        return self._run(lambda job: self._inner.agent(query, timeout, api_key=api_key))


__all__ = ["ComputerUseExtension"]
