"""A real Chromium for tests: pages that are opened, looked at and typed into as a person does."""

import base64
import json
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio


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
