"""The examples: what their READMEs tell people to type works as written, and what needs a cluster is at least valid.

What they need beyond this repository comes by ``hack/example_software.sh``.
"""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_sandbox.testing.browser import chromium
from agent_sandbox.testing.pages import applied_on_a_cluster, lines_of_example

pytestmark = [
    pytest.mark.slow,
    pytest.mark.node,
    pytest.mark.timeout(1200),  # the first time, what an example needs is fetched and compiled
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on PATH"),
]

Run = Callable[..., subprocess.CompletedProcess[str]]
REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"
ARTEFACTS = REPOSITORY / "build" / "artefacts"


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
        script = "\n".join(lines_of_example(EXAMPLES / example, "On this machine"))
        said = run("bash", "-euo", "pipefail", "-c", script, timeout=400).stdout
        check_cluster_commands(run, example)
        return said

    return follow_readme


def check_cluster_commands(run: Run, example: str) -> None:
    """An API server accepts every manifest that is applied, and every file that is named exists."""
    kubeconfig = run("agent-sandbox", "local", "kubeconfig").stdout.strip()
    for words in applied_on_a_cluster(EXAMPLES / example):
        run(*words, f"--kubeconfig={kubeconfig}", "--dry-run=server", "--validate=strict")


def test_runtime_of_ones_own(follow: Callable[..., str]) -> None:
    said = follow("python-runtime-sandbox")

    assert "hello from Linux\n6 times 7 is 42\n" in said
    assert '{"stdout":"Linux\\n","stderr":"","exit_code":0}' in said


def test_agent_in_a_browser_does_what_a_scripted_model_wants(follow: Callable[..., str]) -> None:
    said = follow("gemini-cu-sandbox")

    assert "Done; the page is now http://127.0.0.1:9000/shop?ordered=two%20cups%20of%20tea\nexit code 1\n" in said


async def test_jupyter_of_the_all_in_one_sandbox_for_programs_and_people(
    follow: Callable[..., str], tmp_path: Path
) -> None:
    said = follow("aio-sandbox")

    assert "the answer is 42\n" in said
    await open_in_browser(last_link(said), tmp_path, "aio-sandbox", "document.querySelector('.jp-Launcher') !== null")


async def test_editor_comes_back_with_its_files(follow: Callable[..., str], tmp_path: Path) -> None:
    said = follow("vscode-sandbox")

    between = said[said.index("vscode suspended") : said.index("vscode resumed")]
    assert "pod/vscode" not in between
    assert "persistentvolumeclaim/workspaces-vscode" in between
    assert "kept\n" in said
    # The list of files comes over the editor's WebSocket.
    await open_in_browser(
        last_link(said), tmp_path, "vscode-sandbox", "document.body?.innerText.includes('note.txt') === true"
    )


def last_link(said: str) -> str:
    """The last line that is an address."""
    return [line for line in said.splitlines() if line.startswith("http://")][-1]


async def open_in_browser(link: str, place: Path, name: str, expression: str) -> None:
    """Open a link in a real browser and wait until the page shows what it shall; a picture is kept."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("the commands work; the page was not looked at, for there is no Chromium")
    async with chromium(program, place / "profile") as page:
        await page.open(link)
        await page.wait_for(expression, 90)
        assert "agent-sandbox-token" not in await page.evaluate("location.href")
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        await page.screenshot(ARTEFACTS / f"{name}.png")
