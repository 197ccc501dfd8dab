"""What the documents tell people to type works as written."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_sandbox.testing.pages import shell_lines

Run = Callable[..., subprocess.CompletedProcess[str]]
REPOSITORY = Path(__file__).resolve().parents[2]
PERSON = "python test/e2e/person.py"
ANSWERS = {" vi ": (r"\x1b\[30;1H", "\x1b:q!\r"), " python": (r">>> ", "exit()\r"), "": (r"[$#] ", "exit\r")}
"""What a program that is on a terminal shows when it is ready, and the keys that end it."""


@pytest.mark.node
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_five_minutes_of_the_readme_work_as_written(run: Run, environment: dict[str, str]) -> None:
    """All commands of the section, in order, in one shell; kubectl's where there is a kubectl."""
    environment |= {"AGENT_SANDBOX_API_PORT": "0", "AGENT_SANDBOX_ROUTER_PORT": "0"}
    lines = shell_lines(REPOSITORY / "README.md", "Five minutes")
    if shutil.which("kubectl") is None:
        lines = [line for line in lines if not line.startswith("kubectl")]

    said = run("bash", "-euo", "pipefail", "-c", "\n".join(lines), timeout=400).stdout

    assert "42\n" in said
    assert "Hello\n" in said
    assert "templates   1, warm pools 1" in said


@pytest.mark.node
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_command_of_the_page_on_the_command_works_as_written(run: Run, environment: dict[str, str]) -> None:
    """All blocks in one shell; what wants a person gets a terminal and a few keys, what never ends gets Ctrl-C."""
    environment |= {"AGENT_SANDBOX_API_PORT": "0", "AGENT_SANDBOX_ROUTER_PORT": "0"}
    run("agent-sandbox", "local", "up", "--background", "--quiet")
    run(
        "agent-sandbox",
        "apply",
        "-f",
        "config/samples/sandboxtemplate.yaml",
        "-f",
        "config/samples/sandboxwarmpool.yaml",
    )
    blocks = re.findall(r"^```sh\n(.*?)^```", (REPOSITORY / "docs/cli.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 8

    said = run(
        "bash",
        "-euo",
        "pipefail",
        "-c",
        "\n".join(attended(line) for line in "".join(blocks).splitlines()),
        timeout=400,
    ).stdout

    for words in ("ok    router", "42", "from a pipe", "it was 7", "hello\n/tmp", "1\n2\n3", "hi\n", "box suspended"):
        assert words in said
    assert re.search(r"^http://127\.0\.0\.1:18080$", said, re.MULTILINE)
    assert said.rstrip().endswith("box removed")


def attended(line: str) -> str:
    """A line of the page, with what a person would do while it runs."""
    command = line.partition(" #")[0]
    if "-it " in line:
        prompt, keys = next(answer for words, answer in ANSWERS.items() if words in line)
        return f"{PERSON} types {shlex.quote(prompt)} {shlex.quote(keys)} {command}"
    return f"{PERSON} interrupts {command}" if "# until Ctrl-C" in line else line
