"""A stand-in for the Gemini API, for machines without a key or the internet: it wants the same things every time.

It also serves the page that these things are done on, and checks what a real model would be shown: a key, a picture.
"""

import base64
from typing import Any

from aiohttp import web

PORT = 9000
PAGE = """<!doctype html><title>Orders</title>
<style>body { margin: 0 } input, button { position: absolute; left: 128px; width: 512px; height: 80px; font-size: 32px }
input { top: 80px } button { top: 240px } h1 { position: absolute; top: 400px; left: 128px }</style>
<input id=what placeholder="What do you need?"><button onclick="order()">Order</button><h1 id=said></h1>
<script>
function order() {
  said.textContent = 'Ordered: ' + what.value;
  history.replaceState(null, '', '/shop?ordered=' + encodeURIComponent(what.value));
}
</script>"""
# Places are on a grid of 1000 by 1000.
SCRIPT: list[dict[str, Any]] = [
    {"name": "navigate", "args": {"url": f"http://127.0.0.1:{PORT}/shop"}},
    {"name": "type_text_at", "args": {"x": 300, "y": 150, "text": "wrong", "press_enter": False}},
    {"name": "no_such_action", "args": {}},
    {"name": "type_text_at", "args": {"x": 300, "y": 150, "text": "two cups of tea", "press_enter": False}},
    {"name": "click_at", "args": {"x": 300, "y": 350}},
]


async def generate(request: web.Request) -> web.Response:
    """The next action of the script; at the end, what can be told from the last function response."""
    if request.headers.get("x-goog-api-key") != "scripted":
        return web.json_response({"error": {"code": 400, "message": "API key not valid."}}, status=400)
    contents = (await request.json())["contents"]
    last = contents[-1]["parts"]
    pictures = last if len(contents) == 1 else last[0]["functionResponse"]["parts"]
    png = base64.b64decode(next(part["inlineData"]["data"] for part in pictures if "inlineData" in part))
    if not png.startswith(b"\x89PNG") or len(png) < 1000:
        return web.json_response({"error": {"code": 400, "message": "That is no picture."}}, status=400)
    task = contents[0]["parts"][0]["text"]
    if "pay" in task:
        decision = {"decision": "require_confirmation", "explanation": "This spends money."}
        return _answer({"functionCall": {"name": "click_at", "args": {"x": 1, "y": 1, "safety_decision": decision}}})
    done = len(contents) // 2
    if done < len(SCRIPT):
        return _answer({"functionCall": {**SCRIPT[done], "id": f"call-{done}"}})
    return _answer({"text": f"Done; the page is now {last[0]['functionResponse']['response']['url']}"})


def _answer(part: dict[str, Any]) -> web.Response:
    return web.json_response({"candidates": [{"content": {"role": "model", "parts": [part]}}]})


async def shop(request: web.Request) -> web.Response:
    """The page."""
    return web.Response(text=PAGE, content_type="text/html")


if __name__ == "__main__":
    app = web.Application(client_max_size=64 << 20)
    app.add_routes([web.post("/v1beta/models/{model}", generate), web.get("/shop", shop)])
    web.run_app(app, port=PORT)
