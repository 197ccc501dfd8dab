"""`python -m agent_sandbox` is the agent-sandbox command."""

from agent_sandbox.cli import main

if __name__ == "__main__":
    main(prog_name="agent-sandbox")
