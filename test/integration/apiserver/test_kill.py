"""A kill at any moment loses no acknowledged write.

``python test/integration/apiserver/kill_loop.py 100`` does the same a hundred times.
"""

from pathlib import Path

import anyio
import pytest

from agent_sandbox.testing.killing import kill_under_load, objects_after

WRITER = Path(__file__).with_name("writer.py")


@pytest.mark.slow
async def test_a_killed_server_has_every_acknowledged_write(tmp_path: Path) -> None:
    """Three kills in a row over one database, each after some hundred writes."""
    for number in range(3):
        with anyio.fail_after(200):
            acknowledged = await kill_under_load(WRITER, tmp_path, writes=150, base=number * 1_000_000)
            found = await objects_after(tmp_path)

        assert len(acknowledged) > 10
        lost = {name: value for name, value in acknowledged.items() if found.get(name, -1) < value}
        assert not lost
