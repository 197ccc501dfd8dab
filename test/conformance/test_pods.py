"""Pods: defaults, binding, status, and their slow deletion."""

from typing import Any

import pytest

from agent_sandbox.testing.conformance import Api, pod


async def test_a_pod_gets_the_defaults_that_a_kubelet_relies_on(api: Api) -> None:
    """Of the spec."""
    spec = (await api.create(api.pods, pod("a")))["spec"]

    assert spec["restartPolicy"] == "Always"
    assert spec["dnsPolicy"] == "ClusterFirst"
    assert spec["terminationGracePeriodSeconds"] == 30
    assert spec["schedulerName"] == "default-scheduler"
    assert spec["enableServiceLinks"] is True
    assert spec["securityContext"] == {}


@pytest.mark.parametrize("name", ["../x", "/etc", "A", ""])
async def test_a_volumes_name_is_a_label(api: Api, name: str) -> None:
    """Kubelets make a path of it."""
    body = pod("a")
    body["spec"]["volumes"] = [{"name": name, "emptyDir": {}}]
    answer = await api.request("POST", api.pods, body)

    assert answer.status == 422
    assert answer.json["details"]["causes"][0]["field"] == "spec.volumes[0].name"


@pytest.mark.parametrize("amount", ["abc", "1..2", "1 Gi", "1Xi"])
async def test_an_amount_that_is_no_quantity_is_a_bad_request(api: Api, amount: str) -> None:
    """What counts amounts, a kubelet for one, would fail over it."""
    body = pod("a")
    body["spec"]["containers"][0]["resources"] = {"requests": {"cpu": amount}}
    answer = await api.request("POST", api.pods, body)

    assert answer.status == 400
    assert answer.json["message"].startswith('Pod in version "v1" cannot be handled as a Pod: ')


async def test_a_container_gets_its_defaults(api: Api) -> None:
    """Termination message and pull policy."""
    (container,) = (await api.create(api.pods, pod("a")))["spec"]["containers"]

    assert container["terminationMessagePath"] == "/dev/termination-log"
    assert container["terminationMessagePolicy"] == "File"
    assert container["resources"] == {}


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("app", "Always"),
        ("app:latest", "Always"),
        ("app:1", "IfNotPresent"),
        ("host:5000/app", "Always"),
        ("app@sha256:" + "0" * 64, "IfNotPresent"),
    ],
)
async def test_the_pull_policy_follows_the_tag(api: Api, image: str, policy: str) -> None:
    """No tag means latest, latest means always."""
    body = pod("a")
    body["spec"]["containers"][0]["image"] = image
    (container,) = (await api.create(api.pods, body))["spec"]["containers"]

    assert container["imagePullPolicy"] == policy


async def test_ports_and_probes_get_their_defaults(api: Api) -> None:
    """TCP, and the periods of a probe."""
    body = pod("a")
    body["spec"]["containers"][0] |= {"ports": [{"containerPort": 80}], "readinessProbe": {"httpGet": {"port": 80}}}
    (container,) = (await api.create(api.pods, body))["spec"]["containers"]

    assert container["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    probe = container["readinessProbe"]
    assert (probe["periodSeconds"], probe["timeoutSeconds"]) == (10, 1)
    assert (probe["successThreshold"], probe["failureThreshold"]) == (1, 3)
    assert probe["httpGet"] == {"path": "/", "port": 80, "scheme": "HTTP"}


async def test_limits_become_requests(api: Api) -> None:
    """A limit without a request asks for as much."""
    body = pod("a")
    body["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "1", "memory": "1Gi"}}
    created = await api.create(api.pods, body)

    assert created["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "1", "memory": "1Gi"}
    assert created["status"]["qosClass"] == "Guaranteed"


@pytest.mark.parametrize(
    ("resources", "expected"),
    [({}, "BestEffort"), ({"requests": {"cpu": "1"}}, "Burstable")],
)
async def test_the_quality_of_service_follows_the_resources(api: Api, resources: dict[str, Any], expected: str) -> None:
    """qosClass."""
    body = pod("a")
    body["spec"]["containers"][0]["resources"] = resources

    assert (await api.create(api.pods, body))["status"]["qosClass"] == expected


async def test_a_new_pod_is_pending(api: Api) -> None:
    """Whatever the body said."""
    created = await api.create(api.pods, {**pod("a"), "status": {"phase": "Running"}})

    assert created["status"]["phase"] == "Pending"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"containers": []}, "spec.containers"),
        ({"containers": [{"name": "x"}]}, "spec.containers[0].image"),
        ({"containers": [{"image": "x"}]}, "spec.containers[0].name"),
        ({"containers": [{"name": "x", "image": "i"}, {"name": "x", "image": "i"}]}, "spec.containers[1].name"),
        ({"restartPolicy": "Sometimes"}, "spec.restartPolicy"),
        (
            {"containers": [{"name": "x", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]},
            "spec.containers[0].volumeMounts[0].name",
        ),
        (
            {"containers": [{"name": "x", "image": "i", "ports": [{"containerPort": 0}]}]},
            "spec.containers[0].ports[0].containerPort",
        ),
    ],
)
async def test_a_broken_pod_is_refused(api: Api, change: dict[str, Any], field: str) -> None:
    """422 names the field."""
    body = pod("a")
    body["spec"] |= change
    answer = await api.request("POST", api.pods, body)

    assert answer.status == 422
    assert field in {cause["field"] for cause in answer.json["details"]["causes"]}


async def test_a_wrong_type_in_a_pod_is_a_bad_request(api: Api) -> None:
    """Built-in kinds are decoded before they are checked."""
    body = pod("a")
    body["spec"]["terminationGracePeriodSeconds"] = "soon"
    answer = await api.request("POST", api.pods, body)

    assert answer.status == 400
    assert "cannot unmarshal string into Go struct field" in answer.json["message"]


async def test_most_of_a_pods_spec_cannot_change(api: Api) -> None:
    """422 lists what may."""
    await api.create(api.pods, pod("a"))
    answer = await api.merge(f"{api.pods}/a", {"spec": {"restartPolicy": "Never"}})

    assert answer.status == 422
    assert "pod updates may not change fields other than" in answer.json["message"]


async def test_a_pods_image_can_change(api: Api) -> None:
    """One of the few things."""
    await api.create(api.pods, pod("a"))
    operations = [{"op": "replace", "path": "/spec/containers/0/image", "value": "app:2"}]

    assert (await api.json_patch(f"{api.pods}/a", operations)).status == 200


async def test_binding_gives_a_pod_to_a_node(api: Api) -> None:
    """As a scheduler does."""
    await api.create(api.pods, pod("a"))
    body = {"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "node-1"}}
    answer = await api.request("POST", f"{api.pods}/a/binding", body)

    assert answer.status == 201
    bound = (await api.get(f"{api.pods}/a")).json
    assert bound["spec"]["nodeName"] == "node-1"
    conditions = {entry["type"]: entry["status"] for entry in bound["status"]["conditions"]}
    assert conditions["PodScheduled"] == "True"
    await api.delete(f"{api.pods}/a", {"gracePeriodSeconds": 0})


async def test_a_bound_pod_cannot_be_bound_again(api: Api) -> None:
    """409."""
    await api.create(api.pods, pod("a"))
    body = {"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "node-1"}}
    await api.request("POST", f"{api.pods}/a/binding", body)
    answer = await api.request("POST", f"{api.pods}/a/binding", body)

    assert answer.status == 409
    await api.delete(f"{api.pods}/a", {"gracePeriodSeconds": 0})


async def _bound(api: Api, **spec: Any) -> None:
    body = pod("a")
    body["spec"] |= {"nodeName": "node-1", **spec}
    await api.create(api.pods, body)


async def test_an_unbound_pod_goes_at_once(api: Api) -> None:
    """Nobody has to stop it."""
    await api.create(api.pods, pod("a"))
    answer = await api.delete(f"{api.pods}/a")

    assert answer.json["kind"] == "Pod"
    assert (await api.get(f"{api.pods}/a")).status == 404


async def test_a_bound_pod_waits_for_its_node(api: Api) -> None:
    """It is marked with the grace period that it asked for."""
    await _bound(api, terminationGracePeriodSeconds=7)
    marked = (await api.delete(f"{api.pods}/a")).json

    assert marked["metadata"]["deletionGracePeriodSeconds"] == 7
    assert (await api.get(f"{api.pods}/a")).status == 200
    await api.delete(f"{api.pods}/a", {"gracePeriodSeconds": 0})
    assert (await api.get(f"{api.pods}/a")).status == 404


async def test_a_second_delete_may_shorten_the_grace_period(api: Api) -> None:
    """And never lengthens it."""
    await _bound(api)
    await api.delete(f"{api.pods}/a")
    shorter = (await api.delete(f"{api.pods}/a", {"gracePeriodSeconds": 5})).json
    longer = (await api.delete(f"{api.pods}/a", {"gracePeriodSeconds": 50})).json

    assert shorter["metadata"]["deletionGracePeriodSeconds"] == 5
    assert longer["metadata"]["deletionGracePeriodSeconds"] == 5
    await api.delete(f"{api.pods}/a", {"gracePeriodSeconds": 0})


async def test_a_finished_pod_goes_at_once(api: Api) -> None:
    """There is nothing to stop."""
    await _bound(api)
    await api.merge(f"{api.pods}/a/status", {"status": {"phase": "Succeeded"}})
    await api.delete(f"{api.pods}/a")

    assert (await api.get(f"{api.pods}/a")).status == 404


async def test_an_eviction_is_a_delete(api: Api) -> None:
    """pods/eviction."""
    await api.create(api.pods, pod("a"))
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}}
    answer = await api.request("POST", f"{api.pods}/a/eviction", body)

    assert answer.status == 201
    assert (await api.get(f"{api.pods}/a")).status == 404


async def test_the_status_subresource_keeps_the_spec(api: Api) -> None:
    """A kubelet changes the status only."""
    await api.create(api.pods, pod("a"))
    answer = await api.merge(
        f"{api.pods}/a/status",
        {"spec": {"restartPolicy": "Never"}, "status": {"phase": "Running", "podIP": "10.0.0.1"}},
    )

    assert answer.json["spec"]["restartPolicy"] == "Always"
    assert answer.json["status"]["podIP"] == "10.0.0.1"


async def test_conditions_merge_by_type_in_a_strategic_patch(api: Api) -> None:
    """A kubelet patches one condition at a time."""
    await api.create(api.pods, pod("a"))
    path = f"{api.pods}/a/status"
    await api.strategic(path, {"status": {"conditions": [{"type": "Ready", "status": "False"}]}})
    await api.strategic(path, {"status": {"conditions": [{"type": "Initialized", "status": "True"}]}})
    changed = (await api.strategic(path, {"status": {"conditions": [{"type": "Ready", "status": "True"}]}})).json

    conditions = {entry["type"]: entry["status"] for entry in changed["status"]["conditions"]}
    assert conditions["Ready"] == "True"
    assert conditions["Initialized"] == "True"


async def test_the_log_of_an_unbound_pod_is_empty(api: Api) -> None:
    """204: it has said nothing."""
    await api.create(api.pods, pod("a"))
    answer = await api.get(f"{api.pods}/a/log")

    assert (answer.status, answer.body) == (204, b"")


async def test_the_log_of_a_missing_pod_is_not_found(api: Api) -> None:
    """404."""
    assert (await api.get(f"{api.pods}/a/log")).status == 404


async def test_the_log_of_an_unknown_container_is_a_bad_request(api: Api) -> None:
    """400 names the container."""
    await api.create(api.pods, pod("a"))
    answer = await api.get(f"{api.pods}/a/log", container="nobody")

    assert answer.status == 400
    assert "container nobody is not valid for pod a" in answer.json["message"]
