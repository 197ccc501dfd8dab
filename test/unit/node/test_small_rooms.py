"""Images, addresses, quantities, admission, records: the small rooms of the node."""

import os
from decimal import Decimal
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent_sandbox.local.node.addresses import ISOLATED_NETWORK, AddressPool, host_uid
from agent_sandbox.local.node.admission import refusal
from agent_sandbox.local.node.environment import Facts
from agent_sandbox.local.node.errors import ContainerError, ImageError, NodeError, StateInUseError
from agent_sandbox.local.node.images import built_in_image
from agent_sandbox.local.node.oci import ImageSource, ImageStore
from agent_sandbox.local.node.pods import NODE_PODS, Container, Pod, PodSpec, VolumeMount
from agent_sandbox.local.node.records import NodeDirectory, PodRecord, remove_tree
from agent_sandbox.local.node.volumes import ReferredObjects, Volume, VolumeMaker, mounts_of
from agent_sandbox.local.quantities import parse_quantity
from agent_sandbox_api.views import MetaView


@pytest.mark.parametrize(
    "reference",
    [
        "python-runtime-sandbox",
        "python-runtime-sandbox:v1",
        "registry.k8s.io:5000/agents/python-runtime-sandbox:latest",
        "ghcr.io/x/python-runtime-sandbox@sha256:0123",
        "ghcr.io/x/python-runtime-sandbox:v2@sha256:0123",
    ],
)
def test_the_runtime_image_is_known_in_any_registry_and_with_any_tag(reference: str) -> None:
    image = built_in_image(reference)

    assert image is not None
    assert image.name == "python-runtime-sandbox"
    assert image.ready_port == 8888


@pytest.mark.parametrize("reference", ["nginx", "host", "localhost/host2", "my-python-runtime-sandbox", ""])
async def test_any_other_image_is_refused_with_the_list_of_those_that_exist(reference: str, tmp_path: Path) -> None:
    images = ImageSource(ImageStore(tmp_path), lambda: None)

    with pytest.raises(ImageError, match="localhost/host") as caught:
        await images.find(reference, "IfNotPresent")

    assert caught.value.reason == "ErrImagePull"
    assert repr(reference) in str(caught.value)


def test_a_returned_address_is_lent_again_as_late_as_possible() -> None:
    pool = AddressPool(ISOLATED_NETWORK)
    first, second = pool.take(), pool.take()
    pool.give_back(first)

    assert (first, second, pool.take()) == ("10.88.0.2", "10.88.0.3", "10.88.0.4")
    assert pool.take(first) == first
    assert pool.take(first) not in {first, second}


def test_an_exhausted_network_is_an_error_that_says_what_to_do() -> None:
    pool = AddressPool(IPv4Network("10.88.0.0/29"))
    for _ in range(5):
        pool.take()

    with pytest.raises(NodeError, match="delete Pods"):
        pool.take()


def test_pods_of_one_node_and_of_two_nodes_have_different_host_users() -> None:
    one, two = Path("/state/one"), Path("/state/two")
    uids = {host_uid("10.88.0.2", one), host_uid("10.88.0.3", one), host_uid("10.88.0.2", two)}

    assert len(uids) == 3
    assert all(1_879_048_192 <= uid < 2**31 for uid in uids)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", "1"), ("250m", "0.25"), ("64Mi", "67108864"), ("1.5Gi", "1610612736"), ("2e3", "2000"), ("1k", "1000")],
)
def test_quantities_are_exact(text: str, value: str) -> None:
    assert parse_quantity(text) == Decimal(value)


def test_no_quantity_is_larger_than_kubernetes_has_them() -> None:
    assert [parse_quantity(text) for text in ("1e999999", "-9e40", "9223372036854775807")] == [
        2**63 - 1,
        1 - 2**63,
        2**63 - 1,
    ]


@pytest.mark.parametrize("text", ["", "x", "1Xi", "--1", "1 Gi", "1..2", ".", "1e99999999999999999999"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        parse_quantity(text)


def pod(**spec: Any) -> Pod:
    return Pod(MetaView(name="p", namespace="n"), msgspec.convert(spec, PodSpec))


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"hostPID": True}, "hostPID"),
        ({"containers": [{"name": "c", "securityContext": {"privileged": True}}]}, "privileged"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "hostPath"),
        ({"nodeSelector": {"zone": "a"}}, "zone=a"),
        (
            {"containers": [{"name": "c", "livenessProbe": {"httpGet": {"port": 80, "host": "169.254.169.254"}}}]},
            "host",
        ),
        ({"containers": [{"name": "c", "readinessProbe": {"tcpSocket": {"port": 80, "host": "10.88.0.9"}}}]}, "host"),
        ({"containers": [{"name": "c", "lifecycle": {"preStop": {"httpGet": {"port": 80, "host": "x"}}}}]}, "host"),
    ],
)
def test_what_this_node_cannot_give_is_refused_by_name(spec: dict[str, Any], word: str) -> None:
    refused = refusal(pod(**spec), {})

    assert refused is not None
    assert word in refused.message


def test_an_ordinary_pod_is_taken() -> None:
    assert refusal(pod(nodeSelector={"os": "linux"}), {"os": "linux"}) is None


def test_a_pods_spec_may_hold_nulls_and_fields_nobody_knows() -> None:
    stored = NODE_PODS.decode(
        b'{"metadata":{"name":"p"},"spec":{"nodeName":null,"x":1,"containers":[{"name":"c","env":null,"new":{}}]}}'
    )

    assert stored.decode().spec.containers[0].name == "c"


def test_a_spec_of_the_wrong_shape_is_an_error_of_that_pod_alone() -> None:
    stored = NODE_PODS.decode(b'{"metadata":{"name":"p"},"spec":{"containers":7}}')

    with pytest.raises(msgspec.ValidationError, match="containers"):
        stored.decode()


def record(uid: str) -> PodRecord:
    return PodRecord(uid, "ns", "name", "10.88.0.2", None)


def test_records_come_back_and_directories_without_one_go(tmp_path: Path) -> None:
    directory = NodeDirectory(tmp_path / "node")
    directory.create()
    directory.create_pod(record("a"))
    (directory.pods / "stranger" / "files").mkdir(parents=True)
    (directory.pods / "torn").mkdir()
    (directory.pods / "torn" / "record.json").write_text('{"uid": ')

    assert directory.records() == {"a": record("a")}
    assert [path.name for path in directory.pods.iterdir()] == ["a"]


def test_a_state_directory_has_one_owner_at_a_time(tmp_path: Path) -> None:
    directory = NodeDirectory(tmp_path)
    first = directory.lock()
    with pytest.raises(StateInUseError, match="another node"):
        directory.lock()
    os.close(first)

    os.close(directory.lock())


def test_a_tree_whose_owner_took_away_his_own_rights_is_removed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").write_text("x")
    (tree / "link").symlink_to("/etc")
    (tree / "a" / "b").chmod(0)
    (tree / "a").chmod(0)

    remove_tree(tree)
    remove_tree(tree)

    assert not tree.exists()
    assert Path("/etc").is_dir()


@pytest.mark.parametrize("below", ["../x", "/etc", "a/../../x"])
def test_a_sub_path_stays_in_its_volume(below: str) -> None:
    container = Container("c", volume_mounts=(VolumeMount("v", "/data", sub_path=below),))

    with pytest.raises(ContainerError, match="leaves its volume"):
        mounts_of(container, {"v": Volume(Path("/volume"))})


@pytest.mark.parametrize("kind", ["emptyDir", "configMap"])
@pytest.mark.parametrize("place", ["../outside", "{here}/outside", "..", ""])
def test_a_volumes_name_leads_out_of_no_pod(tmp_path: Path, kind: str, place: str) -> None:
    """An emptyDir of the name ``/home/user`` would be the user's home, open for everybody."""
    outside, inside = tmp_path / "outside", tmp_path / "pod"
    outside.mkdir(mode=0o700)
    inside.mkdir(mode=0o700)
    stored = NODE_PODS.decode(b'{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c"}]}}').decode()
    volume = {"name": place.format(here=tmp_path), kind: {"name": "c"}}
    made = Pod(stored.metadata, PodSpec(volumes=(volume,)))
    objects = ReferredObjects(config_maps={"c": {"key": b"x"}})
    maker = VolumeMaker(record("u"), inside, Facts(made, "", "", ""), objects, {})

    with pytest.raises(ContainerError, match="no name of a volume"):
        maker.make()
    assert [path.stat().st_mode & 0o777 for path in (outside, inside)] == [0o700, 0o700]
    assert not list(outside.iterdir())
