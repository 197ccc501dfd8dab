"""A server that is to be killed: writes without end and tells each acknowledged write on standard output.

Run with the folder of its database and the number to begin with. Each line is ``name value``, written after the server
acknowledged that write.
"""

import sys
from pathlib import Path

import anyio
import msgspec

from agent_sandbox.local.apiserver import ApiRequest, ApiServer, ObjectStore, SqliteJournal, UserInfo

WRITERS = 8
PATH = "/api/v1/namespaces/default/configmaps"


async def _write(server: ApiServer, writer: int, base: int) -> None:
    number = base
    while True:
        name = f"w{writer}-{number % 20}"
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": str(number)}}
        encoded = msgspec.json.encode(body)
        answer = await server.handle(ApiRequest("POST", PATH, body=encoded, user=UserInfo()))
        if answer.status == 409:
            answer = await server.handle(ApiRequest("PUT", f"{PATH}/{name}", body=encoded, user=UserInfo()))
        assert answer.status < 300, answer.body
        sys.stdout.write(f"{name} {number}\n")
        sys.stdout.flush()
        number += 1


async def main(folder: Path, base: int) -> None:
    """Write until killed."""
    server = ApiServer(ObjectStore(SqliteJournal(folder / "objects.db")))
    await server.open()
    async with anyio.create_task_group() as group:
        for writer in range(WRITERS):
            group.start_soon(_write, server, writer, base)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
