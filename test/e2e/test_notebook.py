"""A real Jupyter in a sandbox, used from a real browser through the router, by host and by path.

The picture is kept under ``build/artefacts``. Chromium comes from the distribution and Jupyter from PyPI, both by
``hack/setup.sh browser``.
"""

import json
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent_sandbox.sdk import AsyncSandbox, AsyncSandboxes, ConnectionOptions
from agent_sandbox.testing.browser import Page, chromium

pytestmark = [pytest.mark.slow, pytest.mark.node, pytest.mark.timeout(1200)]
REPOSITORY = Path(__file__).resolve().parents[2]
NOTEBOOK = REPOSITORY / "build" / "notebook"
ARTEFACTS = REPOSITORY / "build" / "artefacts"
PORT = 8899
TEMPLATE = """
apiVersion: extensions.agents.x-k8s.io/v1alpha1
kind: SandboxTemplate
metadata: {name: notebook}
spec:
  podTemplate:
    spec:
      containers:
        - name: main
          image: python-runtime-sandbox:latest
          ports: [{containerPort: 8888}]
          readinessProbe: {httpGet: {path: /, port: 8888}, periodSeconds: 1, failureThreshold: 60}
"""


@pytest.fixture(scope="module")
def browser() -> str:
    """The browser's program; installed, with Jupyter, by the project's own command."""
    done = subprocess.run([REPOSITORY / "hack" / "setup.sh", "browser"], check=False, capture_output=True, text=True)
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if done.returncode or program is None:
        pytest.skip(f"no browser or no Jupyter: {done.stderr.strip() or 'hack/setup.sh browser installed none'}")
    return program


@asynccontextmanager
async def notebook(state_dir: Path, archive: Path) -> AsyncIterator[AsyncSandbox]:
    """A sandbox in which Jupyter serves below the path that the router's way ``/prefixed`` has."""
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(NOTEBOOK, arcname="notebook")
    options = ConnectionOptions(local=True, state_dir=state_dir)
    async with AsyncSandboxes(options=options) as sandboxes, sandboxes.use("notebook") as sandbox:
        await sandbox.files.upload(archive, "notebook.tar.gz")
        assert (await sandbox.run("tar xzf notebook.tar.gz", timeout=120)).exit_code == 0
        base = f"/prefixed/{sandbox.namespace}/{sandbox.claim_name}/{PORT}/"
        flags = f"--no-browser --ip=0.0.0.0 --port={PORT} --ServerApp.base_url={base} --IdentityProvider.token="
        flags += " --ServerApp.allow_remote_access=True --ServerApp.root_dir=/workspace/work"
        await sandbox.run("mkdir -p work jupyter")
        await sandbox.commands.start(
            f"env PYTHONPATH=/workspace/notebook HOME=/workspace/jupyter JUPYTER_PLATFORM_DIRS=1 "
            f"JUPYTERLAB_DIR=/workspace/notebook/share/jupyter/lab "
            f"JUPYTER_PATH=/workspace/notebook/share/jupyter JUPYTER_CONFIG_PATH=/workspace/notebook/etc/jupyter "
            f"python3 -m notebook {flags} >log 2>&1"
        )
        await sandbox.ports.wait(PORT, timeout=120)
        yield sandbox


async def run_a_cell(page: Page, code: str) -> None:
    """Type into the first cell of an open notebook, run it, and wait for what it prints."""
    await page.wait_for("document.querySelector('.jp-Notebook .cm-content') !== null", 120)
    # The indicator of the kernel says idle before there is one; running a cell then asks for a kernel instead.
    sessions = "fetch(location.pathname.replace(/notebooks.*/, 'api/sessions')).then((answer) => answer.json())"
    connected = "(one) => location.pathname.endsWith(one.path) && one.kernel.connections > 0"
    await page.wait_for(f"{sessions}.then((all) => all.some({connected}))", 120)
    await page.wait_for("document.querySelector('[data-status=idle]') !== null", 120)
    await page.evaluate("document.querySelector('.jp-Notebook .cm-content').focus()")
    await page.call("Input.insertText", text=code)
    await page.press("Enter", shift=True)
    await page.wait_for(
        "document.querySelector('.jp-OutputArea-output')?.innerText.includes('six times seven is 42')", 60
    )


async def test_notebook_in_a_sandbox_works_in_a_browser_by_host_and_by_path(
    run: Callable[..., Any], environment: dict[str, str], browser: str, tmp_path: Path
) -> None:
    run("agent-sandbox", "local", "up", "--background", "--api-port", "0", "--router-port", "0")
    (tmp_path / "template.yaml").write_text(TEMPLATE)
    run("agent-sandbox", "apply", "-f", str(tmp_path / "template.yaml"))
    state_dir = Path(environment["HOME"]) / ".local" / "state" / "agent-sandbox" / "default"
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    async with notebook(state_dir, tmp_path / "notebook.tar.gz") as sandbox:
        base = f"/prefixed/{sandbox.namespace}/{sandbox.claim_name}/{PORT}"
        await sandbox.write("work/by-host.ipynb", EMPTY_NOTEBOOK)
        await sandbox.write("work/by-path.ipynb", EMPTY_NOTEBOOK)
        ways = {
            "host": await sandbox.ports.signed_url(PORT, f"{base}/notebooks/by-host.ipynb"),
            "path": await sandbox.ports.signed_url(PORT, "/notebooks/by-path.ipynb", prefixed=True),
        }
        for way, link in ways.items():
            async with chromium(browser, tmp_path / f"profile-{way}") as page:
                uninvited = link.partition("?")[0]
                await page.open(uninvited)
                await page.wait_for("document.body?.innerText.includes('X-Sandbox-Authorization')")
                await page.open(link)
                await run_a_cell(page, "print('six times seven is', 6 * 7)")
                assert "agent-sandbox-token" not in await page.evaluate("location.href + document.cookie")
                assert await page.evaluate("location.pathname") == f"{base}/notebooks/by-{way}.ipynb"
                await page.screenshot(ARTEFACTS / f"notebook-by-{way}.png")


EMPTY_NOTEBOOK = json.dumps(
    {
        "cells": [
            {"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "source": "", "execution_count": None}
        ],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
)
