"""Edge cases 70 to 96: Service, volumes and expiry of a Sandbox."""

from dataclasses import replace
from typing import Any

import pytest

from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.core import PODS, SERVICES
from agent_sandbox_controllers.actions import Change, Create, Remove
from agent_sandbox_controllers.parsed import sandbox_spec
from agent_sandbox_controllers.sandbox.plan import is_marked_expired, plan_expiry
from agent_sandbox_controllers.sandbox.service import plan_service, service_ports
from agent_sandbox_controllers.sandbox.status import expired_status, expiring_status
from agent_sandbox_controllers.sandbox.volumes import plan_volumes

VOLUME = [{"metadata": {"name": "data", "labels": {"kind": "disk"}}, "spec": {"accessModes": ["ReadWriteOnce"]}}]
FOREIGN = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "other", "controller": True}


def container(*ports: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"name": "main", "ports": list(ports), **rest}


def shown(spec: dict[str, Any]) -> list[tuple[str, int, str]]:
    return [(port["name"], port["port"], port["protocol"]) for port in service_ports(spec)]


def test_edge_070_no_container_ports_no_service_ports() -> None:
    assert service_ports({"containers": [container()]}) == []


def test_edge_071_and_072_a_headless_service_with_selector_and_ports_is_made(make: Any) -> None:
    observed = make.observed(pod_template={"spec": {"containers": [container({"containerPort": 8888})]}})

    (create,) = plan_service(observed).actions

    assert isinstance(create, Create)
    assert create.body["spec"] == {
        "clusterIP": "None",
        "selector": {**make.tracked, "agents.x-k8s.io/sandbox-uid": make.uid},
        "ports": [{"name": "p-8888-tcp", "port": 8888, "protocol": "TCP", "targetPort": 8888}],
    }


def test_edge_073_of_init_containers_only_sidecars_are_exposed() -> None:
    sidecar = container({"containerPort": 2}, restartPolicy="Always")
    plain = container({"containerPort": 3})

    assert shown({"containers": [container()], "initContainers": [sidecar, plain]}) == [("p-2-tcp", 2, "TCP")]


def test_edge_074_ports_are_sorted_and_unique_and_keep_their_first_name() -> None:
    ports: list[dict[str, Any]] = [
        {"containerPort": 9, "name": "nine"},
        {"containerPort": 9, "name": "again"},
        {"containerPort": 0},
        {"containerPort": 5, "protocol": "UDP"},
        {"containerPort": 5},
    ]

    assert shown({"containers": [container(*ports)]}) == [
        ("p-5-tcp", 5, "TCP"),
        ("p-5-udp", 5, "UDP"),
        ("nine", 9, "TCP"),
    ]


def test_edge_075_a_name_belongs_to_the_first_port_that_has_it() -> None:
    ports = [{"containerPort": 2, "name": "web"}, {"containerPort": 1, "name": "web"}]

    assert shown({"containers": [container(*ports)]}) == [("p-1-tcp", 1, "TCP"), ("web", 2, "TCP")]


def test_edge_076_a_generated_name_that_is_taken_gets_a_number() -> None:
    ports: list[dict[str, Any]] = [{"containerPort": 2, "name": "p-1-tcp"}, {"containerPort": 1}]

    assert shown({"containers": [container(*ports)]}) == [("p-1-tcp-2", 1, "TCP"), ("p-1-tcp", 2, "TCP")]


def test_edge_077_an_owned_service_that_drifted_is_repaired(make: Any) -> None:
    drifted = make.service(labels={}, selector={"app": "evil"}, ports=[{"port": 1}])

    (change,) = plan_service(make.observed(service=drifted)).actions

    assert isinstance(change, Change)
    assert change.body["metadata"]["labels"] == make.tracked
    assert change.body["spec"]["selector"]["app"] is None
    assert change.body["spec"]["ports"] is None


def test_edge_078_fields_of_ports_that_are_not_ours_are_left(make: Any) -> None:
    port = {"name": "p-8888-tcp", "port": 8888, "protocol": "TCP", "targetPort": 8888, "appProtocol": "http"}
    observed = make.observed(
        service=make.service(ports=[port]),
        pod_template={"spec": {"containers": [container({"containerPort": 8888})]}},
    )

    assert plan_service(observed).actions == ()


def test_edge_079_a_service_of_another_controller_is_refused(make: Any) -> None:
    plan = plan_service(make.observed(service=make.service(owner=FOREIGN)))

    assert plan.actions == ()
    assert 'service "alice" is owned by ReplicaSet/web' in plan.troubles[0].message


@pytest.mark.parametrize(
    ("number", "labels", "cluster_ip", "words"),
    [
        (80, {"agents.x-k8s.io/adoptable": "true"}, "None", ""),
        (81, {"agents.x-k8s.io/adoptable": "true"}, "10.1.1.1", 'ClusterIP is "10.1.1.1" (expected "None"'),
        (82, {"agents.x-k8s.io/sandbox-name-hash": "872213e7"}, "None", ""),
        (83, {}, "None", "cannot adopt unowned service"),
    ],
)
def test_edge_080_to_083_an_unowned_service_is_adopted_if_it_offers_itself_and_fits(
    make: Any, number: int, labels: Any, cluster_ip: str, words: str
) -> None:
    offered = make.service(owner={}, labels=labels, clusterIP=cluster_ip, selector={"app": "old"})

    plan = plan_service(make.observed(service=offered))

    if words:
        assert plan.actions == ()
        assert words in plan.troubles[0].message
    else:
        (change,) = plan.actions
        assert isinstance(change, Change)
        assert change.body["metadata"]["ownerReferences"][0]["uid"] == make.uid
        assert change.body["spec"]["selector"] == {
            "app": None,
            **make.tracked,
            "agents.x-k8s.io/sandbox-uid": make.uid,
        }


def test_edge_085_service_false_deletes_an_owned_service_and_ignores_others(make: Any) -> None:
    unwanted = sandbox_spec(make.sandbox(service=False))

    own = plan_service(replace(make.observed(service=make.service()), spec=unwanted))
    other = plan_service(replace(make.observed(service=make.service(owner=FOREIGN)), spec=unwanted))

    assert own.actions == (Remove(SERVICES, "default", "alice", "alice-uid"),)
    assert (other.actions, other.troubles) == ((), ())


def test_edge_086_a_missing_volume_is_made_with_label_and_owner(make: Any) -> None:
    (create,) = plan_volumes(make.observed(volumeClaimTemplates=VOLUME)).actions

    assert isinstance(create, Create)
    assert create.body["metadata"]["name"] == "data-alice"
    assert create.body["metadata"]["labels"] == {"kind": "disk", **make.tracked}
    assert create.body["metadata"]["ownerReferences"][0]["uid"] == make.uid


@pytest.mark.parametrize(
    ("number", "owner", "labels", "actions", "troubles"),
    [
        (87, None, {}, 0, 0),
        (88, FOREIGN, {}, 0, 1),
        (89, {}, {"agents.x-k8s.io/adoptable": "true"}, 1, 0),
        (89, {}, {"agents.x-k8s.io/sandbox-name-hash": "872213e7"}, 1, 0),
        (89, {}, {}, 0, 1),
    ],
)
def test_edge_087_to_089_an_existing_volume_is_used_adopted_or_refused(
    make: Any, number: int, owner: Any, labels: Any, actions: int, troubles: int
) -> None:
    volumes = {"data-alice": make.volume(owner=owner, labels=labels)}

    plan = plan_volumes(make.observed(volumeClaimTemplates=VOLUME, volumes=volumes))

    assert (len(plan.actions), len(plan.troubles)) == (actions, troubles)


def test_a_volume_on_its_way_out_keeps_the_pod_waiting(make: Any) -> None:
    volumes = {"data-alice": make.volume(deletionTimestamp=make.stamp())}

    plan = plan_volumes(make.observed(volumeClaimTemplates=VOLUME, volumes=volumes))

    assert plan.troubles[0].reason == "DependenciesNotReady"


@pytest.mark.parametrize(("seconds", "expired"), [(None, False), (3600, False), (0, True), (1, False), (-10, True)])
def test_edge_090_expiry_is_exact(make: Any, seconds: float | None, expired: bool) -> None:
    observed = make.observed(**({} if seconds is None else {"shutdownTime": make.stamp(seconds)}))

    assert observed.expired is expired
    assert observed.seconds_left == seconds


def test_edge_091_and_092_a_retained_sandbox_loses_every_pod_of_its_own_and_its_service(make: Any) -> None:
    observed = make.observed(
        owned_pods=(make.ready_pod(), make.ready_pod(name="adopted")),
        service=make.service(),
        shutdownTime=make.stamp(-1),
    )

    assert plan_expiry(observed).actions == (
        Remove(PODS, "default", "alice", "pod-alice"),
        Remove(PODS, "default", "adopted", "pod-adopted"),
        Remove(SERVICES, "default", "alice", "alice-uid"),
    )
    assert set(expired_status(observed)) == {"conditions", "replicas"}


def test_edge_093_and_defect_18_with_delete_the_sandbox_goes_in_the_version_looked_at(make: Any) -> None:
    observed = make.observed(shutdownTime=make.stamp(-1), shutdownPolicy="Delete")

    assert plan_expiry(observed).actions == (Remove(SANDBOXES, "default", "alice", make.uid, "7"),)


@pytest.mark.parametrize("owner", [FOREIGN, {}])
def test_edge_094_strangers_survive_the_expiry(make: Any, owner: Any) -> None:
    observed = make.observed(
        named_pod=make.pod(owner=owner), service=make.service(owner=owner), shutdownTime=make.stamp(-1)
    )

    assert plan_expiry(observed).actions == ()


def test_edge_095_and_096_the_first_pass_only_tells_and_keeps_what_was_finished(make: Any) -> None:
    was = [
        {"type": kind, "status": "True", "reason": "PodSucceeded", "lastTransitionTime": make.stamp(-60)}
        for kind in ("Finished", "PodScheduled")
    ]
    observed = make.observed(status={"conditions": was, "service": "alice"}, shutdownTime=make.stamp(-1))

    status = expiring_status(observed)

    assert not is_marked_expired(observed)
    assert [each["type"] for each in status["conditions"]] == ["Finished", "Ready"]
    assert status["conditions"][1]["reason"] == "SandboxExpired"
    assert status["service"] == "alice"


def test_defect_08_the_service_selects_by_uid_and_not_by_a_32_bit_hash_alone(make: Any) -> None:
    (create,) = plan_service(make.observed()).actions

    assert create.body["spec"]["selector"]["agents.x-k8s.io/sandbox-uid"] == make.uid  # type: ignore[union-attr]


def test_defect_46_a_pod_that_is_going_is_not_deleted_again(make: Any) -> None:
    going = make.ready_pod(metadata={"deletionTimestamp": make.stamp()})

    assert plan_expiry(make.observed(owned_pods=(going,), shutdownTime=make.stamp(-1))).actions == ()


def test_defect_13_reserved_keys_of_a_volume_template_do_not_reach_the_volume(make: Any) -> None:
    metadata = {
        "name": "data",
        "labels": {"agents.x-k8s.io/claim-uid": "forged", "kind": "disk"},
        "annotations": {"agents.x-k8s.io/x": "y"},
    }
    (create,) = plan_volumes(make.observed(volumeClaimTemplates=[{"metadata": metadata, "spec": {}}])).actions

    assert create.body["metadata"]["labels"] == {"kind": "disk", **make.tracked}  # type: ignore[union-attr]
    assert "annotations" not in create.body["metadata"]  # type: ignore[union-attr]
