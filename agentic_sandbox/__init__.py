"""The name under which the seed imports the SDK: its examples run as they stand.

>>> from agentic_sandbox import SandboxClient
>>> with SandboxClient(template_name="python-sandbox-template") as sandbox:  # doctest: +SKIP
...     print(sandbox.run("python -c 'print(42)'").stdout)

The classes are those of ``agent_sandbox``, which has the rest, too; new programs import that.
"""

from agent_sandbox import ExecutionResult, SandboxClient

__all__ = ["ExecutionResult", "SandboxClient"]
