"""The lean views: what they keep of an object, and what they conclude from it."""

import json
from typing import Any

import msgspec
import pytest

from agent_sandbox_api.core import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, PODS, PodView
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS
from agent_sandbox_api.views import find_condition, is_condition_true, key_of, raw_object

READY = {"type": "Ready", "status": "True"}


def pod(**changes: Any) -> PodView:
    wire: dict[str, Any] = {
        "metadata": {"name": "box", "namespace": "default", "uid": "u1", "resourceVersion": "7"},
        "spec": {"nodeName": "n1", "containers": [{"name": "main"}]},
        "status": {"phase": "Running", "conditions": [READY], "podIPs": [{"ip": "10.0.0.5"}, {"ip": "fd00::5"}]},
    }
    for part, change in changes.items():
        wire[part] = {**wire[part], **change}
    return PODS.decode(json.dumps(wire).encode())


def test_a_running_addressed_pod_is_ready() -> None:
    assert pod().ready
    assert pod().ips == ("10.0.0.5", "fd00::5")


@pytest.mark.parametrize(
    "changes",
    [
        {"status": {"phase": "Succeeded"}},
        {"status": {"conditions": [{"type": "Ready", "status": "False"}]}},
        {"status": {"conditions": []}},
        {"status": {"podIPs": []}},
        {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}},
    ],
    ids=["finished", "unready", "unknown", "without address", "on its way out"],
)
def test_a_pod_that_cannot_serve_is_not_ready(changes: dict[str, Any]) -> None:
    assert not pod(**changes).ready


def test_the_single_address_of_older_servers_counts() -> None:
    assert pod(status={"podIPs": [], "podIP": "10.0.0.9"}).ips == ("10.0.0.9",)


def test_managed_fields_never_enter_memory() -> None:
    view = pod(metadata={"managedFields": [{"manager": "kubelet"}]})
    assert b"kubelet" not in msgspec.json.encode(view)


def test_the_controller_is_the_owner_that_says_so() -> None:
    owner = {"apiVersion": "agents.x-k8s.io/v1alpha1", "kind": "Sandbox", "name": "box", "uid": "u0"}
    view = pod(metadata={"ownerReferences": [{**owner, "uid": "other"}, {**owner, "controller": True}]})
    assert view.metadata.controller is not None
    assert (view.metadata.controller.uid, view.metadata.controller.group) == ("u0", "agents.x-k8s.io")
    assert pod().metadata.controller is None


def test_conditions_are_found_by_their_type() -> None:
    view = pod()
    assert find_condition(view.status.conditions, "Initialized") is None
    assert is_condition_true(view.status.conditions, "Ready")


def test_a_part_that_is_kept_raw_can_be_read_whole() -> None:
    wire = {"metadata": {"name": "c", "namespace": "n"}, "spec": {"sandboxTemplateRef": {"name": "t"}, "newField": [1]}}
    view = SANDBOX_CLAIMS.decode(json.dumps(wire).encode())
    assert raw_object(view.spec) == wire["spec"]
    assert raw_object(None) == {}
    assert key_of(view) == ("n", "c")


def test_an_object_that_is_none_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        PODS.decode(b'{"metadata": 1}')


def test_paths_are_those_of_kubernetes() -> None:
    assert PODS.path("default", "box", "log") == "/api/v1/namespaces/default/pods/box/log"
    assert PODS.path() == "/api/v1/pods"
    assert SANDBOX_CLAIMS.path("n") == "/apis/extensions.agents.x-k8s.io/v1alpha1/namespaces/n/sandboxclaims"
    assert NAMESPACES.path("ignored", "default") == "/api/v1/namespaces/default"
    assert str(CUSTOM_RESOURCE_DEFINITIONS) == "customresourcedefinitions.apiextensions.k8s.io"
    assert CUSTOM_RESOURCE_DEFINITIONS.api_version == "apiextensions.k8s.io/v1"


def test_what_many_objects_have_in_common_they_share() -> None:
    """Of 10,000 members of a pool each has the same spec, and labels of the same long names."""
    label = "internal.agents.x-k8s.io/a-name-that-is-longer-than-parsers-remember"

    def claim(name: str, spec: str) -> bytes:
        return json.dumps({"metadata": {"name": name, "labels": {label: name}}, "spec": {"s": spec}}).encode()

    one, two, other = (SANDBOX_CLAIMS.decode(claim(*each)) for each in (("a", "x"), ("b", "x"), ("c", "y")))
    assert one.spec is two.spec
    assert raw_object(other.spec) == {"s": "y"}
    assert next(iter(one.metadata.labels)) is next(iter(two.metadata.labels))
    assert (one.metadata.labels, two.metadata.labels) == ({label: "a"}, {label: "b"})
