"""Kills a writing server again and again: ``python test/integration/apiserver/kill_loop.py [times]``.

After each kill every object must have at least the last value that was acknowledged for it, in this round or in any
before. Exits 1 at the first that has not, or if SQLite finds the database broken at the end.
"""

import random
import sqlite3
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import anyio

from agent_sandbox.testing.killing import kill_under_load, objects_after

WRITER = Path(__file__).with_name("writer.py")


def count_writes(acknowledged: Mapping[str, int], base: int) -> int:
    """How many writes were acknowledged in a round: each writer counts up from the base."""
    newest: dict[str, int] = defaultdict(int)
    for name, value in acknowledged.items():
        writer = name.partition("-")[0]
        newest[writer] = max(newest[writer], value)
    return sum(value - base + 1 for value in newest.values())


def integrity(database: Path) -> str:
    """What SQLite says about the file; ``ok`` if nothing is wrong."""
    connection = sqlite3.connect(database)
    try:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        connection.close()


async def main(times: int) -> int:
    """Kill that many times over one database."""
    writes = 0
    expected: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for round_number in range(1, times + 1):
            base = round_number * 1_000_000
            acknowledged = await kill_under_load(WRITER, folder, writes=random.randrange(1, 300), base=base)
            expected |= acknowledged
            writes += count_writes(acknowledged, base)
            found = await objects_after(folder)
            lost = {key: value for key, value in expected.items() if found.get(key, -1) < value}
            if lost:
                sys.stderr.write(f"\nround {round_number}: lost {lost}\n")
                return 1
            sys.stdout.write(f"\r{round_number} kills, {writes} writes acknowledged, none lost")
            sys.stdout.flush()
        state = integrity(folder / "objects.db")
    sys.stdout.write(f"; integrity: {state}\n")
    return 0 if state == "ok" else 1


if __name__ == "__main__":
    sys.exit(anyio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 100))
