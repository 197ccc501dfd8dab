"""Gemini's computer-use model over its REST API: what it is told, and what it wants done."""

import base64
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp

DEFAULT_API = "https://generativelanguage.googleapis.com"
DEFAULT_MODEL = "gemini-2.5-computer-use-preview-10-2025"


class ModelError(Exception):
    """The model cannot be asked, or its answer makes no sense."""


@dataclass(frozen=True)
class Action:
    """One thing that the model wants done: its name, and its arguments as the API documents them."""

    name: str
    arguments: dict[str, Any]
    id: str | None = None


@dataclass(frozen=True)
class Seen:
    """What came of an action: facts in words, and the page afterwards as a PNG."""

    action: Action
    facts: dict[str, Any]
    screenshot: bytes


@dataclass(frozen=True)
class Turn:
    """One answer of the model: what it says, and what it wants done; nothing more to do if that is empty."""

    text: str
    actions: list[Action] = field(default_factory=list)


class Model(Protocol):
    """Whoever decides what is done next."""

    async def begin(self, task: str, screenshot: bytes) -> Turn:
        """Tell the task."""

    async def go_on(self, seen: list[Seen]) -> Turn:
        """Tell what came of the actions."""


class Gemini:
    """A conversation with the model.

    Args:
        session: for its requests.
        key: of the Gemini API; it travels in a header, never in an address.
    """

    def __init__(self, session: aiohttp.ClientSession, key: str, *, api: str = DEFAULT_API, model: str = DEFAULT_MODEL):
        self._session = session
        self._key = key
        self._url = f"{api}/v1beta/models/{model}:generateContent"
        self._contents: list[dict[str, Any]] = []

    async def begin(self, task: str, screenshot: bytes) -> Turn:
        """Tell the task."""
        return await self._ask([{"text": task}, _picture(screenshot)])

    async def go_on(self, seen: list[Seen]) -> Turn:
        """Tell what came of the actions."""
        parts = []
        for one in seen:
            response = {"name": one.action.name, "response": one.facts, "parts": [_picture(one.screenshot)]}
            if one.action.id is not None:
                response["id"] = one.action.id
            parts.append({"functionResponse": response})
        return await self._ask(parts)

    async def _ask(self, parts: list[dict[str, Any]]) -> Turn:
        self._contents.append({"role": "user", "parts": parts})
        tools = [{"computerUse": {"environment": "ENVIRONMENT_BROWSER"}}]
        body = {"contents": self._contents, "tools": tools}
        try:
            async with self._session.post(self._url, json=body, headers={"x-goog-api-key": self._key}) as answer:
                data = await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ModelError(f"the model cannot be asked: {error}") from error
        try:
            if answer.status != 200:
                raise ModelError(f"the model refused with {answer.status}: {data['error']['message']}")
            content = data["candidates"][0]["content"]
            said = content.get("parts", [])
            self._contents.append(content)  # as it came: it may carry signatures that the API wants back
            return Turn(
                "".join(part.get("text", "") for part in said if not part.get("thought")),
                [_action(part["functionCall"]) for part in said if "functionCall" in part],
            )
        except (KeyError, IndexError, TypeError) as error:
            raise ModelError(f"the model's answer makes no sense: {error!r}") from error


def _picture(png: bytes) -> dict[str, Any]:
    return {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(png).decode()}}


def _action(call: dict[str, Any]) -> Action:
    return Action(call["name"], call.get("args") or {}, call.get("id"))
