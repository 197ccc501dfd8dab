"""A full file system, a real one: writes are refused with 507, nothing is lost or half-written, and room heals it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("full_disk.py")
NAMESPACE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]


@pytest.mark.slow
def test_a_full_disk_refuses_writes_and_harms_nothing(tmp_path: Path) -> None:
    possible = subprocess.run([*NAMESPACE, "true"], capture_output=True, text=True, check=False)
    if possible.returncode != 0:
        pytest.skip(f"no mount namespace here: {possible.stderr.strip()}")
    done = subprocess.run(
        [*NAMESPACE, sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    status, body = found["refused"]
    assert found["before"] > 50
    assert (status, body["code"], body["reason"]) == (507, 507, "InsufficientStorage")
    assert "nothing was changed" in body["message"]
    assert "full" in body["message"]
    assert found["again"] == [507, 507, 507]
    assert found["reads_while_full"]
    assert found["later"] == [201] * 10, "room heals it without a restart"
    assert found["kept"] == found["acknowledged"]
    assert found["integrity"] == "ok"
