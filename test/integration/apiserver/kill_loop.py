"""Kills a writing server again and again: ``python test/integration/apiserver/kill_loop.py [times]``.

Exits 1 at the first acknowledged write that is not there afterwards.
"""

import random
import sys
import tempfile
from pathlib import Path

import anyio

from agent_sandbox.testing.killing import kill_under_load, objects_after

WRITER = Path(__file__).with_name("writer.py")


async def main(times: int) -> int:
    """Kill that many times over one database."""
    total = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for round_number in range(1, times + 1):
            acknowledged = await kill_under_load(
                WRITER, folder, writes=random.randrange(1, 300), base=round_number * 1_000_000
            )
            found = await objects_after(folder)
            lost = {key: value for key, value in acknowledged.items() if found.get(key, -1) < value}
            if lost:
                sys.stderr.write(f"round {round_number}: lost {lost}\n")
                return 1
            total += len(acknowledged)
            sys.stdout.write(f"\rround {round_number}: {total} objects acknowledged and found")
            sys.stdout.flush()
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(anyio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 100))
