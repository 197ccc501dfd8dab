"""Give a task to the agent in a sandbox: client.py 'what to do'."""

import sys

from agent_sandbox import ComputerUseExtension

with ComputerUseExtension("sandbox-python-computeruse-template") as sandbox:
    result = sandbox.agent(sys.argv[1], timeout=600)
    print(result.stdout, end="")
    print(result.stderr, end="", file=sys.stderr)
sys.exit(result.exit_code)
