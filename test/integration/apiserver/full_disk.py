"""A server on a file system that fills up; run it in a mount namespace of its own, with an empty folder.

Prints as JSON what was acknowledged, how the disk refused, and what a second process then finds in the files.
"""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import msgspec

from agent_sandbox.local.apiserver import ApiRequest, ApiServer, ObjectStore, SqliteJournal, UserInfo

PATH = "/api/v1/namespaces/default/configmaps"
DISK = "3m"
SPARE_BYTES = 512 * 1024


async def _request(server: ApiServer, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    encoded = msgspec.json.encode(body) if body is not None else b""
    answer = await server.handle(ApiRequest(method, path, body=encoded, user=UserInfo()))
    return answer.status, msgspec.json.decode(answer.body)


async def _names(server: ApiServer) -> list[str]:
    _, found = await _request(server, "GET", PATH)
    return [item["metadata"]["name"] for item in found["items"]]


async def fill(folder: Path, spare: Path) -> dict[str, Any]:
    """Fill the disk, look around, make room and go on; nothing is closed at the end."""
    server = ApiServer(ObjectStore(SqliteJournal(folder / "objects.db")))
    await server.open()
    acknowledged: list[str] = []

    async def create() -> tuple[int, Any]:
        name = f"c-{len(acknowledged):04}"
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"x": "y" * 9000}}
        status, answer = await _request(server, "POST", PATH, body)
        if status == 201:
            acknowledged.append(name)
        return status, answer

    while (refused := await create())[0] == 201:
        pass
    again = [(await create())[0] for _ in range(3)]
    while_full = await _names(server) == acknowledged
    before = len(acknowledged)
    await anyio.Path(spare).unlink()
    later = [(await create())[0] for _ in range(10)]
    return {
        "acknowledged": acknowledged,
        "before": before,
        "refused": refused,
        "again": again,
        "reads_while_full": while_full,
        "later": later,
    }


def main(folder: Path) -> None:
    """Everything, in a file system of its own."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder], check=True)
    spare = folder / "spare"
    spare.write_bytes(b"x" * SPARE_BYTES)
    found = anyio.run(fill, folder, spare)
    second = subprocess.run([sys.executable, __file__, folder, "check"], check=True, capture_output=True, text=True)
    sys.stdout.write(json.dumps(found | json.loads(second.stdout)))


def check(folder: Path) -> None:
    """What the files hold, as a server finds them that starts after a crash."""
    database = sqlite3.connect(folder / "objects.db")
    (integrity,) = database.execute("PRAGMA integrity_check").fetchone()
    rows = database.execute("SELECT name FROM objects WHERE bucket = 'configmaps'").fetchall()
    kept = sorted(name for (name,) in rows if name.startswith("c-"))
    sys.stdout.write(json.dumps({"integrity": integrity, "kept": kept}))


if __name__ == "__main__":
    if sys.argv[2:] == ["check"]:
        check(Path(sys.argv[1]))
    else:
        main(Path(sys.argv[1]))
