"""`make demo`: give a program a sandbox on this machine, show what came back and how long it took, remove everything.

The stack of the demo has a name and a state directory of its own, so it never meets a stack that you run yourself.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "agent_sandbox"]
STACK = ["--name", "demo"]


def say(text: str = "") -> None:
    """Print one line at once, also into a pipe."""
    print(text, flush=True)


class Stages:
    """Measures what the demo does, stage by stage."""

    def __init__(self) -> None:
        self._seconds: list[tuple[str, float]] = []

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Time a block and report it when it ends."""
        say(f"→ {title} …")
        began = time.perf_counter()
        yield
        self._seconds.append((title, time.perf_counter() - began))

    def report(self) -> None:
        """Print all stages as a table."""
        width = max(len(title) for title, _ in self._seconds)
        say("\nHow long each stage took")
        for title, seconds in self._seconds:
            say(f"  {title:<{width}}  {seconds * 1000:8.0f} ms")


def agent_sandbox(*arguments: str) -> None:
    """Run the agent-sandbox command; its own message explains a failure."""
    done = subprocess.run([*COMMAND, *arguments], cwd=REPOSITORY, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def use_sandbox(stages: Stages) -> None:
    """The program of the seed document, with a clock beside it."""
    from agent_sandbox import SandboxClient

    with ExitStack() as exits:
        with stages.stage("claim → Ready"):
            sandbox = exits.enter_context(SandboxClient(template_name="python-sandbox-template"))
        say(f"  claimed {sandbox.sandbox_name}")

        with stages.stage("first command"):
            result = sandbox.run("python -c 'print(42)'")
        say(f"  python -c 'print(42)'     says  {result.stdout.strip()}")

        with stages.stage("write a file and run it"):
            sandbox.write("/tmp/test.py", "print('Hello')")
            result = sandbox.run("python /tmp/test.py")
        say(f"  python /tmp/test.py       says  {result.stdout.strip()}")

        inside = sandbox.run(
            "sh -c 'id -u; hostname; find /root /home -mindepth 1 2>/dev/null | wc -l; ls -d /proc/[0-9]* | wc -l'"
        )
        user, host, homes, processes = inside.stdout.split()
        say(f"  inside: user {user} on {host}, {processes} processes to see, {homes} files of anybody's home")


def main() -> None:
    """Start the stack, use it, remove it; if something fails, keep what there is to look at."""
    began = time.perf_counter()
    stages = Stages()
    agent_sandbox("local", "down", *STACK, "--purge", "--quiet")
    try:
        run_demo(stages)
    except KeyboardInterrupt:
        agent_sandbox("local", "down", *STACK, "--purge", "--quiet")
        raise SystemExit("\nInterrupted; everything is removed.") from None
    except (Exception, SystemExit) as error:
        agent_sandbox("local", "down", *STACK, "--quiet")
        say(f"\nThe demo failed: {error}\nIts objects and its log are kept.")
        say("  look:    agent-sandbox local up --background --name demo; agent-sandbox local status --name demo")
        say("  remove:  agent-sandbox local down --name demo --purge")
        raise SystemExit(1) from None
    with stages.stage("remove everything"):
        agent_sandbox("local", "down", *STACK, "--purge", "--quiet")
    stages.report()
    say(f"\nDone in {time.perf_counter() - began:.1f} s. Next: README.md, “Five minutes”.")


def run_demo(stages: Stages) -> None:
    """Everything between an empty machine and a machine to clean."""
    with stages.stage("start control plane, node, controllers and router"):
        agent_sandbox("local", "up", *STACK, "--background", "--api-port", "0", "--router-port", "0", "--quiet")
    os.environ["AGENT_SANDBOX_STACK"] = "demo"
    with stages.stage("apply a template and a warm pool, wait until it is filled"):
        samples = REPOSITORY / "config" / "samples"
        files = ("-f", str(samples / "sandboxtemplate.yaml"), "-f", str(samples / "sandboxwarmpool.yaml"))
        agent_sandbox("apply", *files, "--wait", "--quiet")
    use_sandbox(stages)


if __name__ == "__main__":
    main()
