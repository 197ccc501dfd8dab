"""A real Jupyter in a sandbox, used from a real browser through the router, by host and by path.

The picture is kept under ``build/artefacts``. Chromium comes from the distribution and Jupyter from PyPI, both by
``hack/setup.sh browser``.
"""

import base64
import json
import shutil
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from agent_sandbox.sdk import AsyncSandbox, AsyncSandboxes, ConnectionOptions

pytestmark = [pytest.mark.slow, pytest.mark.node, pytest.mark.timeout(400)]
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


class PageError(AssertionError):
    """The page did not come to what was waited for; the message has what it showed."""


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol; events meanwhile are dropped."""
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        async for message in self._socket:
            answer = json.loads(message.data)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
        raise PageError("Chromium closed the page")

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        return answer["result"].get("value")

    async def open(self, url: str) -> None:
        """Go to an address."""
        await self.call("Page.enable")
        await self.call("Page.navigate", url=url)

    async def wait_for(self, expression: str, seconds: float = 60) -> Any:
        """Wait until an expression in the page is true; gives its value."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if value := await self.evaluate(expression):
                return value
            await anyio.sleep(0.2)
        shown = await self.evaluate("document.documentElement.outerHTML.slice(0, 2000)")
        raise PageError(f"{expression} stayed false at {await self.evaluate('location.href')}: {shown}")

    async def press(self, key: str, *, shift: bool = False) -> None:
        """Press and release a key."""
        code = {"Enter": 13, "Escape": 27}[key]
        for kind in ("keyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                modifiers=8 if shift else 0,
                **({"text": "\r"} if key == "Enter" and kind == "keyDown" else {}),
            )

    async def screenshot(self, file: Path) -> None:
        """Keep what the page shows as a PNG."""
        data = (await self.call("Page.captureScreenshot", format="png"))["data"]
        await anyio.Path(file).write_bytes(base64.b64decode(data))


@asynccontextmanager
async def chromium(program: str, profile: Path) -> AsyncIterator[Page]:
    """A browser with an empty profile and one tab; ended with the block."""
    flags = ["--headless=new", "--remote-debugging-port=0", f"--user-data-dir={profile}", "--window-size=1280,900"]
    # The test may run as root, where Chromium's own sandbox refuses; /dev/shm is small in containers.
    flags += ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions"]
    process = await anyio.open_process([program, *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=-1)
    try:
        with anyio.fail_after(60):
            said = ""
            assert process.stderr is not None
            while "DevTools listening on " not in said:
                said += (await process.stderr.receive()).decode(errors="replace")
        front = said.partition("DevTools listening on ws://")[2].partition("/")[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{front}/json/list") as answer:
                target = next(entry for entry in await answer.json() if entry["type"] == "page")
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield Page(socket)
    finally:
        process.terminate()
        with anyio.CancelScope(shield=True), anyio.move_on_after(10):
            await process.wait()
        await process.aclose()


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
    # The kernel's WebSocket is up when its indicator says idle.
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
