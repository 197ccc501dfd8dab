"""What code sees that nobody has read: its kernel, its rights, its files, its network."""

from pathlib import Path

from agent_sandbox import SandboxClient

INSIDE = Path(__file__).with_name("inside.py")

with SandboxClient(template_name="secure-sandbox-template") as sandbox:
    sandbox.write("inside.py", INSIDE.read_text())
    result = sandbox.run("python3 inside.py")
    print(result.stdout, result.stderr, sep="", end="")
