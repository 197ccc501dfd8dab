"""The command line of a container's walls."""

from pathlib import Path

import pytest

from agent_sandbox.local.node.bubblewrap import Box, Mount, Walls, box_arguments, box_command, inside
from agent_sandbox.local.node.errors import ContainerError
from agent_sandbox.local.node.rootfs import RootFiles

ROOT = RootFiles(Path("/state/runtime/abc"), Path("/home/me/.pyenv/versions/3.11"), "/opt/agent-sandbox/python/lib")


def arguments(box: Box, walls: Walls | None = None) -> list[str]:
    return box_arguments(walls or Walls(), box, ROOT, Path("/mnt"))


def box(**changes: object) -> Box:
    values: dict[str, object] = {"hostname": "pod", "argv": ["run"], "env": {}, "workdir": "/workspace"}
    return Box(**{**values, **changes})  # type: ignore[arg-type] # a test's shorthand


def pairs(words: list[str], option: str) -> list[tuple[str, str]]:
    return [(words[i + 1], words[i + 2]) for i, word in enumerate(words) if word == option]


def test_every_wall_is_asked_for() -> None:
    words = arguments(box())

    for wall in (
        "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--clearenv",
        "--disable-userns", "--seccomp", "--die-with-parent", "--new-session", "--as-pid-1",
    ):  # fmt: skip
        assert wall in words
    assert words[words.index("--cap-drop") + 1] == "ALL"
    assert "--unshare-net" not in words


def test_no_path_of_the_host_outside_the_system_and_our_own_tree_is_shown() -> None:
    words = arguments(box(mounts=[Mount("/mnt/pods/u/files/w", "/workspace")]))

    sources = {source for option in ("--bind", "--ro-bind", "--ro-bind-try") for source, _ in pairs(words, option)}
    assert {
        source for source in sources if not source.startswith(("/usr", "/lib", "/bin", "/sbin", "/etc/", "/mnt/"))
    } == {"/dev/null"}
    assert "/home/me" not in " ".join(words)


def test_the_root_becomes_read_only_after_every_mount_in_it() -> None:
    words = arguments(box(mounts=[Mount("/mnt/a", "/data/deep"), Mount("/mnt/b", "/data")]))

    root = [i for i, word in enumerate(words) if word == "--remount-ro" and words[i + 1] == "/"]
    binds = [i for i, word in enumerate(words) if word in {"--bind", "--tmpfs", "--dir"}]
    assert len(root) == 1
    assert max(binds) < root[0]
    assert pairs(words, "--bind") == [("/mnt/b", "/data"), ("/mnt/a", "/data/deep")]


def test_nothing_but_the_command_is_on_the_visible_command_line() -> None:
    command = box_command(Walls("/usr/bin/bwrap"), box(argv=["run", "--fast"], env={"TOKEN": "secret"}))

    assert command == ["/usr/bin/bwrap", "--args", "10", "--", "run", "--fast"]


def test_an_old_bubblewrap_is_not_given_options_that_it_does_not_know() -> None:
    words = arguments(box(), Walls(disable_userns=False, tmpfs_size=False))

    assert "--disable-userns" not in words
    assert "--size" not in words


def test_a_long_pod_name_still_makes_a_host_name() -> None:
    words = arguments(box(hostname="x" * 100))

    assert words[words.index("--hostname") + 1] == "x" * 63


@pytest.mark.parametrize(
    "changes",
    [
        {"hostname": "a\0b"},
        {"argv": ["a", "b\0"]},
        {"env": {"A": "\0--bind"}},
        {"env": {"A\0": "x"}},
        {"workdir": "/\0--bind"},
        {"mounts": [Mount("/mnt/a", "/a\0--bind")]},
    ],
)
def test_a_null_byte_would_end_an_option_and_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ContainerError, match="null byte"):
        box(**changes)


@pytest.mark.parametrize("path", ["../oldroot/tmp/x", "/a/../../oldroot/tmp/x"])
def test_no_path_of_a_container_leads_from_its_root_to_the_old_one(path: str) -> None:
    """bwrap and gVisor's bundle make what is missing on the way."""
    for changes in ({"workdir": path}, {"mounts": [Mount("/mnt/a", path)]}):
        with pytest.raises(ContainerError, match="leads out"):
            box(**changes)
    assert inside(path) == "/oldroot/tmp/x"
