"""LangChain tools that work in a sandbox: hand them to any agent, graph or model that takes LangChain tools."""

from collections.abc import Callable
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool, ToolException

from agent_sandbox import CommandTimeoutError, Sandbox, SandboxClient, SandboxError

MAX_CHARACTERS = 20_000
"""What a model gets to read of one stream or one file; the artifact of ``run_command`` has all of it."""


def sandbox_tools(sandbox: Sandbox | SandboxClient) -> list[BaseTool]:
    """``run_command``, ``read_file``, ``write_file`` and ``list_files`` of one sandbox.

    What goes wrong in the sandbox becomes a ToolMessage with the status ``error``, for the model to react to. The tools
    may be called from any thread, and with ``ainvoke``.

    Args:
        sandbox: an open sandbox; whoever opened it closes it.
    """

    def run_command(command: str, timeout: float = 60) -> tuple[str, Any]:
        """Run a shell command in the workspace and wait for its end, at most `timeout` seconds."""
        try:
            result = sandbox.commands.run(command, timeout=timeout)
        except CommandTimeoutError as error:
            raise ToolException(f"{error}\n{shortened(error.stdout)}\n{shortened(error.stderr)}") from error
        parts = [shortened(result.stdout)] if result.stdout else []
        if result.stderr:
            parts.append(f"stderr:\n{shortened(result.stderr)}")
        if result.exit_code != 0:
            parts.append(f"exit code: {result.exit_code}")
        return "\n".join(parts), result

    def read_file(path: str) -> str:
        """Read a text file."""
        return shortened(sandbox.files.read(path).decode(errors="replace"))

    def write_file(path: str, content: str) -> str:
        """Write a text file, and its directories if they are missing."""
        sandbox.files.write(path, content)
        return f"{path} is written"

    def list_files(path: str = ".") -> str:
        """List a directory: a name and its size in bytes on each line; directories end with a slash."""
        entries = sandbox.files.list(path)
        return "\n".join(
            f"{each.name}/" if each.type == "directory" else f"{each.name} {each.size}" for each in entries
        )

    return [
        tool(run_command, response_format="content_and_artifact"),
        *(tool(function) for function in (read_file, write_file, list_files)),
    ]


def tool(function: Callable[..., Any], **options: Any) -> BaseTool:
    """A tool whose failures in the sandbox are told to the model instead of ending the program."""

    def told(**arguments: Any) -> Any:
        try:
            return function(**arguments)
        except SandboxError as error:
            raise ToolException(str(error)) from error

    schema = StructuredTool.from_function(function).args_schema
    return StructuredTool.from_function(
        told,
        name=function.__name__,
        description=function.__doc__,
        args_schema=schema,
        handle_tool_error=True,
        **options,
    )


def shortened(text: str) -> str:
    """Its beginning, and how much is missing."""
    missing = len(text) - MAX_CHARACTERS
    return text if missing <= 0 else f"{text[:MAX_CHARACTERS]}\n[{missing} characters more]"
