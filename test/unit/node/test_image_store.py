"""Images: unpacked as their layers say, whoever made them."""

import tarfile
from pathlib import Path

import pytest

from agent_sandbox.local.node.errors import ContainerError, ImageError
from agent_sandbox.local.node.oci import ImageStore
from agent_sandbox.local.node.oci.errors import ImageFormatError
from agent_sandbox.local.node.oci.images import user_ids
from agent_sandbox.local.node.oci.reference import normalized
from agent_sandbox.local.node.oci.rooted import path_in_image
from agent_sandbox.testing.images import Entry, directory, link, make_layout, pack, write_layout


def _unpacked(tmp_path: Path, *layers: dict[str, Entry]) -> Path:
    store = ImageStore(tmp_path / "images")
    (image,) = store.add_layout(make_layout(tmp_path / "layout", layers, name="localhost/x:1"))
    return store.root / image.directory_name / "rootfs"


def test_later_layers_replace_hide_and_empty_what_earlier_ones_brought(tmp_path: Path) -> None:
    root = _unpacked(
        tmp_path,
        {"a/kept": Entry(b"1"), "a/gone": Entry(b"1"), "a/changed": Entry(b"1"), "b/old": Entry(b"1")},
        {"a/.wh.gone": Entry(), "a/changed": Entry(b"2"), "b/new": Entry(b"2"), "b/.wh..wh..opq": Entry()},
    )

    assert sorted(path.name for path in (root / "a").iterdir()) == ["changed", "kept"]
    assert (root / "a/changed").read_bytes() == b"2"
    assert [path.name for path in (root / "b").iterdir()] == ["new"]


def test_no_link_and_no_name_of_a_hostile_image_reaches_the_machine(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    depth = "../" * 20
    root = _unpacked(
        tmp_path,
        {
            "to-outside": link(str(outside)),
            "up": link(f"{depth}{outside}"),
            f"{depth}{outside}/by-name": Entry(b"evil"),
        },
        {
            "to-outside/precious": Entry(b"evil"),
            "up/precious": Entry(b"evil"),
            "hard": Entry(kind=tarfile.LNKTYPE, link="up/precious"),
            "etc/hosts": link(f"{outside}/precious"),
        },
    )

    assert {path.name: path.read_text() for path in outside.iterdir()} == {"precious": "mine"}
    assert (root / "etc/hosts").is_file()
    assert not (root / "etc/hosts").is_symlink()


def test_what_a_sandbox_is_mounted_upon_is_no_link_of_an_image_even_to_a_directory_of_it(tmp_path: Path) -> None:
    """To bwrap ``/oldroot`` is the machine."""
    names = ("dev", "etc", "proc", "sys")
    layer = {"oldroot/tmp": directory(), **{name: link("/oldroot/tmp") for name in names}}
    root = _unpacked(tmp_path, layer)

    assert not any((root / name).is_symlink() for name in names)
    assert (root / "etc/hosts").is_file()


def test_a_link_of_an_earlier_layer_is_followed_inside_the_image(tmp_path: Path) -> None:
    root = _unpacked(
        tmp_path, {"usr/lib": directory(), "lib": link("usr/lib"), "run": directory()}, {"lib/libx": Entry(b"x")}
    )

    assert (root / "usr/lib/libx").read_bytes() == b"x"
    assert (root / "lib").is_symlink()


def test_permissions_of_the_owner_are_everybodys_and_devices_and_set_uid_are_left_out(tmp_path: Path) -> None:
    root = _unpacked(
        tmp_path,
        {
            "tool": Entry(b"x", 0o4755),
            "secret": Entry(b"x", 0o600),
            "dev/null": Entry(kind=tarfile.CHRTYPE),
            "dir": directory(0o500),
        },
    )

    assert (root / "tool").stat().st_mode & 0o7777 == 0o777
    assert (root / "secret").stat().st_mode & 0o7777 == 0o666
    assert (root / "dir").stat().st_mode & 0o7777 == 0o777
    assert not (root / "dev/null").exists()


def test_an_image_is_known_by_every_spelling_of_its_name_until_another_one_takes_it(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images")
    store.create()
    (first,) = store.add_layout(make_layout(tmp_path / "1", [{"f": Entry(b"1")}], name="tool", Env=["A=1"]))
    (again,) = store.add_layout(tmp_path / "1", ["docker.io/library/other:2"])
    (second,) = store.add_layout(make_layout(tmp_path / "2", [{"f": Entry(b"2")}], name="tool:latest", Env=["A=2"]))

    assert again.digest == first.digest
    assert store.find("docker.io/tool") == second
    assert store.find("other:2") is not None
    assert store.find("other:2") == store.find(first.digest)
    assert store.remove("other:2")
    assert not store.remove("other:2")
    assert [image.digest for image in store.images()] == [second.digest]


def test_archives_of_a_layout_and_of_docker_save_are_read(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images")
    layout = make_layout(tmp_path / "layout", [{"f": Entry(b"1")}], name="localhost/a:1")
    with tarfile.open(tmp_path / "layout.tar", "w") as tar:
        for path in layout.rglob("*"):
            tar.add(path, path.relative_to(layout), recursive=False)
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "config.json").write_text('{"config": {"User": "7"}}')
    (saved / "layer.tar").write_bytes(pack({"g": Entry(b"2")}))
    (saved / "manifest.json").write_text(
        '[{"Config": "config.json", "RepoTags": ["localhost/b:1"], "Layers": ["layer.tar"]}]'
    )

    (first,) = store.add_layout(tmp_path / "layout.tar")
    (second,) = store.add_layout(saved)

    assert (store.root / first.directory_name / "rootfs/f").exists()
    assert (store.root / second.directory_name / "rootfs/g").exists()
    assert second.config == {"User": "7"}


def test_a_damaged_or_foreign_image_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images")
    damaged = make_layout(tmp_path / "damaged", [{"f": Entry(b"1")}])
    blob = max((damaged / "blobs/sha256").iterdir(), key=lambda path: path.read_bytes()[:2] == b"\x1f\x8b")
    blob.write_bytes(blob.read_bytes() + b"!")
    foreign = write_layout(tmp_path / "foreign", [], name="", config={}, arch="s390x")
    torn = write_layout(tmp_path / "torn", [pack({"f": Entry(b"1" * 2000)})[:700]], name="", config={})
    empty = tmp_path / "empty"
    empty.mkdir()

    for path, why in ((damaged, "damaged"), (foreign, "s390x"), (torn, "unpacked"), (empty, "no OCI layout")):
        with pytest.raises(ImageFormatError, match=why):
            store.add_layout(path)
    assert not store.root.exists() or list(store.root.iterdir()) == []


@pytest.mark.parametrize(
    ("user", "ids"),
    [
        ("", (0, 0)),
        ("0", (0, 0)),
        ("app", (1234, 1235)),
        ("1234", (1234, 1235)),
        ("77", (77, 0)),
        ("app:staff", (1234, 50)),
        ("77:88", (77, 88)),
    ],
)
def test_the_user_of_an_image_is_found_in_its_own_files(user: str, ids: tuple[int, int]) -> None:
    passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1234:1235::/home/app:/bin/sh\n"

    assert user_ids(user, passwd, "root:x:0:\nstaff:x:50:\n") == ids


def test_a_user_that_the_image_does_not_know_is_an_error() -> None:
    with pytest.raises(ImageError, match="'ghost'"):
        user_ids("ghost", "", "")


@pytest.mark.parametrize(
    ("short", "whole"),
    [
        ("python", "docker.io/library/python:latest"),
        ("me/tool:1", "docker.io/me/tool:1"),
        ("docker.io/python", "docker.io/library/python:latest"),
        ("localhost:5000/a", "localhost:5000/a:latest"),
        ("r.example/a/b@sha256:0", "r.example/a/b@sha256:0"),
    ],
)
def test_short_names_are_completed(short: str, whole: str) -> None:
    assert normalized(short) == whole


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/srv/x", "/srv/x"),
        ("srv//./x/", "/srv/x"),
        ("../../srv/../x", "/x"),
        ("/var/run/x", "/run/x"),
        ("/near/x", "/srv/deep/x"),
        ("/d/x", "/oldroot/tmp/x"),
        ("/up/x", "/oldroot/x"),
        ("/", "/"),
    ],
)
def test_a_path_in_an_image_is_what_its_own_programs_take_it_for(tmp_path: Path, path: str, meant: str) -> None:
    for directory_of in ("srv/deep", "var", "run", "oldroot/tmp"):
        (tmp_path / directory_of).mkdir(parents=True)
    for name, target in (
        ("var/run", "/run"), ("near", "srv/deep"), ("d", "/oldroot/tmp"), ("up", "../../../oldroot"), ("loop", "loop"),
    ):  # fmt: skip
        (tmp_path / name).symlink_to(target)

    assert path_in_image(tmp_path, path) == meant
    with pytest.raises(ContainerError, match="circle"):
        path_in_image(tmp_path, "/loop/x")
