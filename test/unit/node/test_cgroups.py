"""Control groups of both versions, on a directory that looks like them: what is written where.

What the kernel makes of it is in test/node/test_limits.py, for the version that the machine has.
"""

import shutil
from decimal import Decimal
from pathlib import Path

import pytest

from agent_sandbox.local.node import cgroups
from agent_sandbox.local.node.cgroups import Cgroups, Limits, find_cgroups

LIMITS = Limits(memory=64 << 20, cpu=Decimal("0.5"), processes=100)


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for hierarchies; directories can be removed with what the kernel would keep in them."""
    place = tmp_path / "cgroup"
    place.mkdir()
    monkeypatch.setattr(cgroups, "_MOUNT", place)
    monkeypatch.setattr(cgroups, "_remove", lambda path: shutil.rmtree(path, ignore_errors=True))
    return place


def _version_2(place: Path, *pids: int) -> None:
    place.mkdir(parents=True, exist_ok=True)
    (place / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids")
    (place / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))


def _found(state: Path) -> Cgroups:
    state.mkdir(exist_ok=True)
    found = find_cgroups(state)
    assert found is not None
    return found


def test_version_2_as_root_is_used_below_its_root(mount: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    _version_2(mount, 1)

    found = _found(tmp_path / "state")
    group = found.create("one", LIMITS)
    place = group.directories["memory"]
    (place / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")

    assert found.layout == "v2"
    assert place.parent.parent == mount
    assert (mount / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    assert (place.parent / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    written = {name: (place / name).read_text() for name in ("memory.max", "memory.swap.max", "pids.max", "cpu.max")}
    assert written == {
        "memory.max": str(64 << 20),
        "memory.swap.max": "0",
        "pids.max": "100",
        "cpu.max": "50000 100000",
    }
    assert group.procs == [str(place / "cgroup.procs")]
    assert group.oom_kills() == 2


def test_version_2_that_was_delegated_to_a_user_is_used_below_his_own_group(
    mount: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(cgroups, "_own_group", lambda: "/user.slice/run.scope")
    own = mount / "user.slice" / "run.scope"
    _version_2(mount)
    _version_2(own, 41)

    found = _found(tmp_path / "state")

    assert [path.parent for path in found.parents] == [own]
    assert (own / "agent" / "cgroup.procs").read_text() == "41"
    assert (own / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"


def test_version_1_is_joined_thread_by_thread_in_each_hierarchy(mount: Path, tmp_path: Path) -> None:
    for controller in ("memory", "pids", "cpu"):
        (mount / controller).mkdir()

    found = _found(tmp_path / "state")
    group = found.create("one", LIMITS)

    assert found.layout == "v1"
    assert [Path(path).name for path in group.procs] == ["tasks"] * 3
    assert (group.directories["memory"] / "memory.limit_in_bytes").read_text() == str(64 << 20)
    assert (group.directories["cpu"] / "cpu.cfs_quota_us").read_text() == "50000"


def test_groups_of_an_earlier_run_stay_where_they_are_and_go_where_they_are_not_looked_for(
    mount: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    for controller in ("memory", "pids", "cpu"):
        (mount / controller).mkdir()
    earlier = _found(tmp_path / "state")
    earlier.create("living", LIMITS)
    same = _found(tmp_path / "state")
    kept = [(parent / "living").is_dir() for parent in same.parents]

    _version_2(mount)
    later = _found(tmp_path / "state")

    assert kept == [True] * 3
    assert later.layout == "v2"
    assert not any(parent.exists() for parent in earlier.parents)


def test_without_usable_groups_there_are_no_limits(mount: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()

    assert find_cgroups(tmp_path / "state") is None
