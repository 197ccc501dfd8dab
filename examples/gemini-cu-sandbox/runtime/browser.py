"""A headless Chromium, driven through its DevTools protocol: what a person does with mouse, keyboard and eyes."""

import asyncio
import base64
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

WIDTH, HEIGHT = 1280, 800
_KEYS = {
    "backspace": ("Backspace", 8, ""),
    "enter": ("Enter", 13, "\r"),
    "escape": ("Escape", 27, ""),
    "tab": ("Tab", 9, ""),
}
_MODIFIERS = {"alt": 1, "control": 2, "meta": 4, "shift": 8}


class BrowserError(Exception):
    """The browser cannot be started, or refused a command."""


class Browser:
    """One page of a running browser. Places are in pixels from its upper left corner."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0

    async def set_size(self, width: int, height: int) -> None:
        """Make the page this large, without regard to the window around it."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self._call("Emulation.setDeviceMetricsOverride", **size)

    async def open(self, url: str) -> None:
        """Go to an address, and wait until the page is loaded or ten seconds are over."""
        if not url.startswith(("http://", "https://", "data:", "about:")):
            url = f"https://{url}"
        answer = await self._call("Page.navigate", url=url)
        if error := answer.get("errorText"):
            raise BrowserError(f"{url}: {error}")
        await self.settle()

    async def back(self, steps: int = 1) -> None:
        """Go back in the history; forward with a negative number."""
        await self._evaluate(f"history.go({-steps})")
        await self.settle()

    async def click(self, x: float, y: float) -> None:
        """Press and release the left button."""
        await self.hover(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            await self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        await self.settle()

    async def hover(self, x: float, y: float) -> None:
        """Move the pointer."""
        await self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    async def drag(self, x: float, y: float, to_x: float, to_y: float) -> None:
        """Move with the button pressed."""
        await self._call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left", clickCount=1)
        await self._call("Input.dispatchMouseEvent", type="mouseMoved", x=to_x, y=to_y, button="left")
        await self._call("Input.dispatchMouseEvent", type="mouseReleased", x=to_x, y=to_y, button="left", clickCount=1)
        await self.settle()

    async def scroll(self, x: float, y: float, dx: float, dy: float) -> None:
        """Turn the wheel by so many pixels."""
        await self._call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=dx, deltaY=dy)
        await self.settle()

    async def write(self, text: str) -> None:
        """Type where the focus is."""
        await self._call("Input.insertText", text=text)

    async def press(self, keys: str) -> None:
        """Press keys together, named as in ``control+a``."""
        *held, last = keys.lower().split("+")
        modifiers = sum(_MODIFIERS.get(name, 0) for name in held)
        key, code, text = _KEYS.get(last, (last, ord(last.upper()[0]), "" if held else last))
        common = {"key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        # In a headless browser nothing but the command selects everything.
        commands = ["selectAll"] if (last, modifiers) == ("a", 2) else []
        await self._call("Input.dispatchKeyEvent", type="keyDown", text=text, commands=commands, **common)
        await self._call("Input.dispatchKeyEvent", type="keyUp", **common)
        await self.settle()

    async def url(self) -> str:
        """The address of the page."""
        return str(await self._evaluate("location.href"))

    async def screenshot(self) -> bytes:
        """What the page shows, as a PNG."""
        return base64.b64decode((await self._call("Page.captureScreenshot", format="png"))["data"])

    async def settle(self, seconds: float = 10) -> None:
        """Wait until the page is loaded; no longer than this."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    await asyncio.sleep(0.1)
                    if await self._evaluate("document.readyState") == "complete":
                        return

    async def _evaluate(self, expression: str) -> Any:
        answer = await self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    async def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        async for message in self._socket:
            answer = message.json()
            if answer.get("id") == self._number:
                if error := answer.get("error"):
                    raise BrowserError(f"{method}: {error['message']}")
                result: dict[str, Any] = answer["result"]
                return result
        raise BrowserError("Chromium closed the page")


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """A browser with an empty profile and one page; ended with the block.

    Raises:
        BrowserError: there is none, or it does not start within a minute.
    """
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise BrowserError("there is no Chromium here: apt-get install chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            program,
            "--headless=new",
            # Chromium's own sandbox needs namespaces inside, which a sandbox refuses; the sandbox around it stands.
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--no-first-run",
            "--hide-scrollbars",
            f"--window-size={WIDTH},{HEIGHT}",
            f"--user-data-dir={profile}",
            "--remote-debugging-port=0",  # on the loopback
            "about:blank",
            env={**_environment(), "HOME": profile},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            front = await _debugging_address(Path(profile, "DevToolsActivePort"), process)
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://{front}/json/list") as answer:
                    page = next(entry for entry in await answer.json() if entry["type"] == "page")
                async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    browser = Browser(socket)
                    await browser.set_size(WIDTH, HEIGHT)
                    yield browser
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


def _environment() -> dict[str, str]:
    """The browser's: whatever a page makes of it, the key of the model is not in it."""
    return {name: value for name, value in os.environ.items() if "KEY" not in name and "PYTHON" not in name}


async def _debugging_address(file: Path, process: asyncio.subprocess.Process) -> str:
    with suppress(TimeoutError):
        async with asyncio.timeout(60):
            while process.returncode is None:
                text = await asyncio.to_thread(_text_of, file)
                if "\n" in text:
                    return f"127.0.0.1:{text.split()[0]}"
                await asyncio.sleep(0.05)
    raise BrowserError(f"Chromium did not start (exit code {process.returncode})")


def _text_of(file: Path) -> str:
    return file.read_text() if file.exists() else ""
