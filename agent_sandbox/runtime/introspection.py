"""Shows the inside of a running process: tasks, queues, caches. Off by default, because it tells names of objects."""

from collections.abc import Callable
from typing import Any

import anyio
import msgspec
from aiohttp import web


def add_introspection(app: web.Application, describe: Callable[[], dict[str, Any]]) -> None:
    """Serve /debug/tasks and one page for each key of what ``describe`` returns, as JSON."""

    async def tasks(_: web.Request) -> web.Response:
        running = [{"name": task.name, "id": task.id, "parent": task.parent_id} for task in anyio.get_running_tasks()]
        return _json(sorted(running, key=lambda task: str(task["name"])))

    async def page(request: web.Request) -> web.Response:
        pages = describe()
        name = request.match_info["name"]
        if name not in pages:
            raise web.HTTPNotFound(text=f"there are: tasks, {', '.join(pages)}\n")
        return _json(pages[name])

    app.router.add_get("/debug/tasks", tasks)
    app.router.add_get("/debug/{name}", page)


def _json(value: Any) -> web.Response:
    return web.Response(body=msgspec.json.format(msgspec.json.encode(value)), content_type="application/json")
