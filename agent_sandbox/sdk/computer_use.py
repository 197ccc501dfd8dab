"""Sandboxes with an agent of their own inside, which operates a browser: the ``/agent`` runtime."""

from agent_sandbox.sdk import legacy
from agent_sandbox.sdk.client import AsyncSandboxClient
from agent_sandbox.sdk.results import ExecutionResult


class AsyncComputerUseExtension(AsyncSandboxClient):
    """A sandbox for the length of an ``async with`` block, whose runtime carries out tasks told in plain words.

    >>> async def main() -> None:
    ...     async with AsyncComputerUseExtension("sandbox-python-computeruse-template") as sandbox:
    ...         print((await sandbox.agent("find the cheapest flight to Oslo", timeout=600)).stdout)

    Everything that ``AsyncSandboxClient`` has is here too. Enter and leave in the same task.
    """

    async def agent(self, query: str, timeout: float | None = 60, *, api_key: str | None = None) -> ExecutionResult:
        """Let the agent in the sandbox carry out a task. It is asked once, never again by itself.

        Args:
            query: the task.
            timeout: seconds to wait for the answer; a runtime that knows no timeouts may go on working after it.
            api_key: key of the model; without, the runtime uses the one in its environment.

        Raises:
            CommandTimeoutError: no answer in time.
            SandboxError: the sandbox cannot be reached, is gone, or refused.
        """
        fields = {"query": query, "api_key": api_key}
        return await legacy.post_for_result(self.sandbox.wire, "agent", fields, timeout, "the agent's task")


__all__ = ["AsyncComputerUseExtension"]
