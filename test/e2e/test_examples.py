"""The examples: what their READMEs tell people to type works as written, and what needs a cluster is at least valid.

What they need beyond this repository comes by ``hack/example_software.sh``.
"""

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.node, pytest.mark.timeout(300)]

Run = Callable[..., subprocess.CompletedProcess[str]]
REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"
CLUSTER_PROGRAMS = {"agent-sandbox", "export", "kubectl", "podman", "printf", "python"}


def commands(example: str, heading: str) -> list[str]:
    """The lines of the shell blocks below a heading of an example's README."""
    text = (EXAMPLES / example / "README.md").read_text()
    section = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section is not None, f"{example} has no heading {heading!r}"
    blocks = re.findall(r"^```sh\n(.*?)^```", section.group(1), re.MULTILINE | re.DOTALL)
    return "".join(blocks).splitlines()


@pytest.fixture
def follow(run: Run, environment: dict[str, str]) -> Callable[[str], str]:
    """Type what a README says to type on this machine, then check what it says of a cluster; gives what was printed."""
    environment |= {"AGENT_SANDBOX_API_PORT": "0", "AGENT_SANDBOX_ROUTER_PORT": "0"}

    def follow_readme(example: str) -> str:
        fetched = subprocess.run(
            [REPOSITORY / "hack" / "example_software.sh", example], check=False, capture_output=True, text=True
        )
        if fetched.returncode:
            pytest.skip(f"what examples/{example} needs is not to be had: {fetched.stderr.strip()}")
        script = "\n".join(commands(example, "On this machine"))
        said = run("bash", "-euo", "pipefail", "-c", script, timeout=240).stdout
        check_cluster_commands(run, example)
        return said

    return follow_readme


def check_cluster_commands(run: Run, example: str) -> None:
    """An API server accepts every manifest that is applied, and every file that is named exists."""
    kubeconfig = run("agent-sandbox", "local", "kubeconfig").stdout.strip()
    for line in commands(example, "On a cluster"):
        words = shlex.split(line, comments=True)
        assert words[0] in CLUSTER_PROGRAMS, line
        for word in words[1:]:
            assert not word.startswith("examples/") or (REPOSITORY / word).exists(), line
        if words[:2] == ["kubectl", "apply"]:
            run(*words, f"--kubeconfig={kubeconfig}", "--dry-run=server", "--validate=strict")


def test_runtime_of_ones_own(follow: Callable[..., str]) -> None:
    said = follow("python-runtime-sandbox")

    assert "hello from Linux\n6 times 7 is 42\n" in said
    assert '{"stdout":"Linux\\n","stderr":"","exit_code":0}' in said


def test_agent_in_a_browser_does_what_a_scripted_model_wants(follow: Callable[..., str]) -> None:
    said = follow("gemini-cu-sandbox")

    assert "Done; the page is now http://127.0.0.1:9000/shop?ordered=two%20cups%20of%20tea\nexit code 1\n" in said
