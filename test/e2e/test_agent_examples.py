"""The examples for agents: what their READMEs tell people to type works as written, on one stack that they share."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_sandbox.local.node import gvisor_trial

pytestmark = [
    pytest.mark.slow,
    pytest.mark.node,
    pytest.mark.timeout(180),
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on PATH"),
]

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"
NEEDS_A_CLUSTER = {"kubectl", "podman", "python", "export", "helm"}

Type = Callable[..., subprocess.CompletedProcess[str]]
needs_gvisor = pytest.mark.skipif(
    gvisor_trial.find_program() is None or os.geteuid() != 0, reason=f"needs root and runsc: {gvisor_trial.INSTALL}"
)


def commands(example: str, heading: str) -> list[str]:
    """The lines of the shell blocks below a heading of an example's README."""
    text = (EXAMPLES / example / "README.md").read_text()
    section = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section is not None, f"{example} has no heading {heading!r}"
    blocks = re.findall(r"^```sh\n(.*?)^```", section.group(1), re.MULTILINE | re.DOTALL)
    return "".join(blocks).splitlines()


@pytest.fixture
def type_(stack: Path, environment: dict[str, str]) -> Type:
    """Type lines into one shell, beside the stack that runs already."""
    environment["AGENT_SANDBOX_STATE_DIR"] = str(stack)

    def type_lines(lines: list[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        script = "\n".join(line for line in lines if not line.startswith("agent-sandbox local up"))
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert not check or done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done

    return type_lines


@pytest.fixture
def check_cluster(type_: Type) -> Callable[[str], None]:
    """What a README says of a cluster is at least valid: files exist, and an API server accepts each manifest."""

    def check(example: str) -> None:
        for line in commands(example, "On a cluster"):
            words = shlex.split(line.rstrip("\\"), comments=True)
            assert words[0] in NEEDS_A_CLUSTER or line.startswith("  "), line
            for word in words[1:]:
                assert not word.startswith("examples/") or (REPOSITORY / word).exists(), line
            if words[:2] == ["kubectl", "apply"]:
                kubeconfig = "export KUBECONFIG=$(agent-sandbox local kubeconfig)"
                type_([kubeconfig, shlex.join([*words, "--dry-run=server", "--validate=strict"])])

    return check


@needs_gvisor
def test_secure_template(type_: Type, check_cluster: Callable[[str], None]) -> None:
    said = type_(commands("secure-template", "On this machine")).stdout

    assert said.endswith(
        "kernel:           Linux version 4.4.0\n"
        "user:             1000\n"
        "writes to:        /workspace /tmp\n"
        "asks for names:   yes\n"
        "the internet:     no (ConnectionRefusedError)\n"
        "the metadata API: no (ConnectionRefusedError)\n"
    )
    check_cluster("secure-template")
    sample = REPOSITORY / "config/samples/needs-a-cluster/secure-sandboxtemplate.yaml"
    assert (EXAMPLES / "secure-template/sandboxtemplate.yaml").read_text() == sample.read_text()


@needs_gvisor
def test_secure_template_on_a_machine_without_gvisor(tmp_path: Path, environment: dict[str, str]) -> None:
    """In a mount namespace where runsc cannot be executed: the sandbox waits, and says what to install."""
    environment |= {"AGENT_SANDBOX_API_PORT": "0", "AGENT_SANDBOX_ROUTER_PORT": "0"}
    setup = commands("secure-template", "On this machine")[:-1]
    script = "\n".join(
        [
            f"mount --bind /dev/null {gvisor_trial.find_program()}",
            "trap 'agent-sandbox local down --purge --quiet' EXIT",
            *setup,
            *commands("secure-template", "Without gVisor"),
        ]
    )

    done = subprocess.run(
        ["unshare", "--mount", "bash", "-euo", "pipefail", "-c", script],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 1, done.stderr
    assert "runtimeClassName 'gvisor': runsc is not installed" in done.stderr
    assert "It is not replaced by a weaker runtime; the Pod starts by itself once runsc is there." in done.stderr
