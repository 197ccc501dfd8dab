"""The ``/agent`` runtime: a task in plain words, carried out in a browser inside the sandbox."""

import asyncio
import os
from typing import Any

import aiohttp
from agent import AgentError, carry_out
from aiohttp import web
from browser import BrowserError, open_browser
from model import DEFAULT_API, DEFAULT_MODEL, Gemini, ModelError

NO_KEY = "GEMINI_API_KEY not found in request or environment variables. Name it in the Secret gemini-api-key."


async def alive(request: web.Request) -> web.Response:
    """Probes ask this."""
    return web.json_response({"status": "ok", "message": "Sandbox Runtime is active."})


async def agent(request: web.Request) -> web.Response:
    """Carry out a task. Whatever becomes of it is told in the answer, which is 200 unless there is no task in it."""
    try:
        body = await request.json()
        query, key = body["query"], body.get("api_key") or os.environ.get("GEMINI_API_KEY")
        if not isinstance(query, str) or not query:
            raise ValueError("the query is empty")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return web.json_response({"detail": f"send {{'query': '…'}}: {error!r}"}, status=422)
    if not key:
        return web.json_response(_result(1, stderr=NO_KEY))
    lines: list[str] = []
    # One browser at a time: two would share the memory that was reckoned for one.
    async with request.app[TURN]:
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(120)) as session, open_browser() as browser:
                model = Gemini(session, key, api=os.environ.get("GEMINI_API", DEFAULT_API), model=MODEL)
                said = await carry_out(query, model, browser, lines.append)
        except (AgentError, BrowserError, ModelError) as error:
            return web.json_response(_result(1, "".join(f"{line}\n" for line in lines), f"{error}\n"))
    return web.json_response(_result(0, "".join(f"{line}\n" for line in [*lines, said])))


def _result(exit_code: int, stdout: str = "", stderr: str = "") -> dict[str, Any]:
    return {"stdout": stdout, "stderr": stderr, "exit_code": exit_code}


MODEL = os.environ.get("GEMINI_MODEL", DEFAULT_MODEL)
TURN = web.AppKey("turn", asyncio.Lock)


async def application() -> web.Application:
    """The runtime. A caller that goes away ends its task."""
    app = web.Application(client_max_size=1 << 20)
    app[TURN] = asyncio.Lock()
    app.add_routes([web.get("/", alive), web.post("/agent", agent)])
    return app


if __name__ == "__main__":
    web.run_app(application(), port=int(os.environ.get("PORT", "8888")), handler_cancellation=True)
