"""No path leads out: not by dots, not by links, not by a race."""

import os
import threading
from pathlib import Path

import pytest

from agent_sandbox.sandboxd.confine import Confinement
from agent_sandbox.sandboxd.errors import PathDeniedError, PathNotFoundError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A workspace, a second allowed directory, and a secret outside both."""
    (tmp_path / "work" / "sub").mkdir(parents=True)
    (tmp_path / "also").mkdir()
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "work" / "file").write_text("file")
    return tmp_path


@pytest.fixture
def confinement(tree: Path) -> Confinement:
    return Confinement((tree / "work", tree / "also"))


def read(confinement: Confinement, path: str) -> str:
    with confinement.open(path) as descriptor:
        return os.read(descriptor, 100).decode()


@pytest.mark.parametrize(
    "path", ["file", "./file", "sub/../file", "sub//..//file", "/{}/work/file", "/{}/also/../work/file"]
)
def test_path_inside_is_opened(confinement: Confinement, tree: Path, path: str) -> None:
    if "also" in path:
        with pytest.raises(PathDeniedError):  # '..' of a root is outside it, even on the way into another one.
            read(confinement, path.format(str(tree).lstrip("/")))
        return
    assert read(confinement, path.format(str(tree).lstrip("/"))) == "file"


@pytest.mark.parametrize(
    "path", ["../secret", "sub/../../secret", "/{}/secret", "/etc/passwd", "/", "..", "a\0b", "/{}/workx"]
)
def test_path_outside_is_denied(confinement: Confinement, tree: Path, path: str) -> None:
    with pytest.raises(PathDeniedError):
        read(confinement, path.format(str(tree).lstrip("/")))


@pytest.mark.parametrize(
    "target",
    ["../secret", "../../../../../../etc/passwd", "/etc/passwd", "loop", "sub/../../secret", "/proc/self/root/etc"],
)
def test_link_that_leads_out_is_denied(confinement: Confinement, tree: Path, target: str) -> None:
    (tree / "work" / "loop").symlink_to("loop")
    (tree / "work" / "link").symlink_to(target)
    (tree / "work" / "directory").symlink_to("..")

    for path in ("link", "sub/../link", "link/x", "directory/secret"):
        with pytest.raises(PathDeniedError):
            read(confinement, path)


def test_link_that_stays_inside_is_followed(confinement: Confinement, tree: Path) -> None:
    (tree / "also" / "x").write_text("x")
    (tree / "work" / "relative").symlink_to("sub/../file")
    (tree / "work" / "absolute").symlink_to(tree / "work" / "file")
    (tree / "work" / "across").symlink_to(tree / "also")
    (tree / "work" / "sub" / "up").symlink_to("..")

    assert read(confinement, "relative") == read(confinement, "absolute") == read(confinement, "sub/up/file") == "file"
    assert read(confinement, "across/x") == "x"


def test_root_may_be_named_by_its_real_path_and_through_a_link(tree: Path) -> None:
    (tree / "alias").symlink_to(tree / "work")
    confinement = Confinement((tree / "alias",))

    assert read(confinement, "file") == "file"
    assert read(confinement, f"{tree}/alias/file") == "file"
    assert read(confinement, f"{tree}/work/file") == "file"


def test_missing_parent_is_not_found_or_made(confinement: Confinement, tree: Path) -> None:
    with pytest.raises(PathNotFoundError), confinement.place("a/b/c"):
        pytest.fail("a place in a directory that does not exist")
    with confinement.place("a/b/c", create_parents=True) as place:
        assert place.name == "c"
    assert (tree / "work" / "a" / "b").is_dir()


def test_file_on_the_way_is_not_a_directory(confinement: Confinement) -> None:
    with pytest.raises(PathNotFoundError):
        read(confinement, "file/x")


def test_fifo_does_not_hold_the_opener(confinement: Confinement, tree: Path) -> None:
    os.mkfifo(tree / "work" / "fifo")

    assert read(confinement, "fifo") == ""


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_descriptor_is_left_open(confinement: Confinement, tree: Path) -> None:
    (tree / "work" / "out").symlink_to("/etc")
    before = open_descriptors()

    for path in ("file", "sub/../file", "out/passwd", "missing", "missing/x", "../x"):
        try:
            read(confinement, path)
        except (PathDeniedError, PathNotFoundError):
            continue

    assert open_descriptors() == before


def test_directory_swapped_for_a_link_while_walking_never_leads_out(confinement: Confinement, tree: Path) -> None:
    """Interleaving: the walker has seen `swap` as a directory; another process exchanges it for a link outside."""
    outside = tree / "outside"
    outside.mkdir()
    (outside / "name").write_text("secret")
    inside = tree / "work" / "inside"
    inside.mkdir()
    (inside / "name").write_text("file")
    swap = tree / "work" / "swap"
    stop = threading.Event()

    def exchange() -> None:
        while not stop.is_set():
            swap.symlink_to(outside)
            swap.unlink()
            swap.symlink_to(inside)
            swap.unlink()

    thread = threading.Thread(target=exchange)
    thread.start()
    seen = set()
    try:
        for _ in range(3000):
            try:
                seen.add(read(confinement, "swap/name"))
            except (PathDeniedError, PathNotFoundError):
                continue
    finally:
        stop.set()
        thread.join()

    assert seen <= {"file"}
