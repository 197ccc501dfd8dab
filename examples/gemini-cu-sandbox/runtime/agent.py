"""The loop: look at the page, ask the model, do what it wants, look again."""

import asyncio
from collections.abc import Callable
from typing import Any

from browser import HEIGHT, WIDTH, Browser, BrowserError
from model import Action, Model, Seen

MAX_TURNS = 40
"""Answers of the model before a task is given up."""
GRID = 1000
"""The model reckons places on a grid of this size, whatever the size of the page."""
SEARCH_PAGE = "https://www.google.com"


class AgentError(Exception):
    """The task was not finished; the message says why."""


async def carry_out(task: str, model: Model, browser: Browser, tell: Callable[[str], None]) -> str:
    """Carry out a task in the browser.

    Args:
        tell: gets a line for each action.

    Returns:
        What the model says at the end.

    Raises:
        AgentError: it needs a person's consent, or too many turns.
    """
    turn = await model.begin(task, await browser.screenshot())
    for _ in range(MAX_TURNS):
        if not turn.actions:
            return turn.text
        seen = []
        for action in turn.actions:
            decision = action.arguments.get("safety_decision") or {}
            if decision.get("decision") == "require_confirmation":
                # Nobody sits in front of this browser who could consent.
                raise AgentError(f"{action.name} needs a person's consent: {decision.get('explanation', '')}")
            tell(f"{action.name} {_brief(action.arguments)}".rstrip())
            seen.append(await _do(action, browser))
        turn = await model.go_on(seen)
    raise AgentError(f"the task was given up after {MAX_TURNS} turns")


async def _do(action: Action, browser: Browser) -> Seen:
    """Do what the model wants; what the browser refuses is told to the model, which may try something else."""
    facts: dict[str, Any] = {}
    try:
        await _perform(action.name, action.arguments, browser)
    except (BrowserError, KeyError, TypeError, ValueError) as error:
        facts["error"] = f"{type(error).__name__}: {error}"
    facts["url"] = await browser.url()
    return Seen(action, facts, await browser.screenshot())


async def _perform(name: str, arguments: dict[str, Any], browser: Browser) -> None:
    match name:
        case "open_web_browser":
            pass  # it is open
        case "wait_5_seconds":
            await asyncio.sleep(5)
        case "navigate":
            await browser.open(arguments["url"])
        case "search":
            await browser.open(SEARCH_PAGE)
        case "go_back" | "go_forward":
            await browser.back(1 if name == "go_back" else -1)
        case "click_at":
            await browser.click(*_place(arguments))
        case "hover_at":
            await browser.hover(*_place(arguments))
        case "type_text_at":
            await browser.click(*_place(arguments))
            if arguments.get("clear_before_typing", True):
                await browser.press("control+a")
                await browser.press("backspace")
            await browser.write(arguments["text"])
            if arguments.get("press_enter", True):
                await browser.press("enter")
        case "key_combination":
            await browser.press(arguments["keys"])
        case "scroll_document":
            await _scroll(browser, (WIDTH / 2, HEIGHT / 2), arguments["direction"], HEIGHT * 0.8)
        case "scroll_at":
            part = float(arguments.get("magnitude", 800)) / GRID
            await _scroll(browser, _place(arguments), arguments["direction"], part * HEIGHT)
        case "drag_and_drop":
            target = {"x": arguments["destination_x"], "y": arguments["destination_y"]}
            await browser.drag(*_place(arguments), *_place(target))
        case _:
            raise ValueError(f"there is no action {name!r}")


def _place(arguments: dict[str, Any]) -> tuple[float, float]:
    return float(arguments["x"]) / GRID * WIDTH, float(arguments["y"]) / GRID * HEIGHT


async def _scroll(browser: Browser, place: tuple[float, float], direction: str, pixels: float) -> None:
    dx, dy = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}[direction]
    await browser.scroll(*place, dx * pixels, dy * pixels)


def _brief(arguments: dict[str, Any]) -> str:
    return " ".join(f"{name}={value!r}" for name, value in arguments.items() if name != "safety_decision")
