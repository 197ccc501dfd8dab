"""Namespaces."""

from uuid import uuid4

import anyio

from agent_sandbox.testing.conformance import Api, config_map

_PATH = "/api/v1/namespaces"


async def test_a_namespace_is_active_and_labelled(api: Api) -> None:
    """The label lets selectors name it."""
    namespace = (await api.get(f"{_PATH}/{api.namespace}")).json

    assert namespace["status"]["phase"] == "Active"
    assert namespace["metadata"]["labels"]["kubernetes.io/metadata.name"] == api.namespace
    assert namespace["spec"]["finalizers"] == ["kubernetes"]


async def test_the_default_namespaces_are_there(api: Api) -> None:
    """As in every cluster."""
    assert {"default", "kube-system", "kube-public"} <= set((await api.get(_PATH)).names)


async def test_a_namespaces_name_is_a_label(api: Api) -> None:
    """No dots, at most 63 characters."""
    for name in ("with.dot", "x" * 64):
        assert (await api.request("POST", _PATH, {"metadata": {"name": name}})).status == 422


async def test_a_deleted_namespace_takes_its_objects_along(api: Api) -> None:
    """Terminating first, gone when it is empty."""
    name = f"conformance-{uuid4().hex[:8]}"
    await api.create(_PATH, {"metadata": {"name": name}})
    await api.create(f"{_PATH}/{name}/configmaps", config_map("a"))
    deleted = (await api.delete(f"{_PATH}/{name}")).json

    assert deleted["status"]["phase"] == "Terminating"
    assert deleted["metadata"]["deletionTimestamp"]
    await api.wait_gone(_PATH, name)
    assert (await api.get(f"{_PATH}/{name}/configmaps")).json["items"] == []


async def test_pods_go_before_everything_else_of_their_namespace(api: Api) -> None:
    """A Pod on its way out keeps its policy: KEP-5080."""
    name = f"conformance-{uuid4().hex[:8]}"
    await api.create(_PATH, {"metadata": {"name": name}})
    await api.wait_for(f"{_PATH}/{name}/serviceaccounts", "default", lambda account: True)
    pod = {
        "metadata": {"name": "held", "finalizers": ["example.com/hold"]},
        "spec": {"containers": [{"name": "main", "image": "i:1"}]},
    }
    await api.create(f"{_PATH}/{name}/pods", pod)
    policies = f"/apis/networking.k8s.io/v1/namespaces/{name}/networkpolicies"
    await api.create(policies, {"metadata": {"name": "closed"}, "spec": {"podSelector": {}}})
    await api.delete(f"{_PATH}/{name}")
    await api.wait_for(f"{_PATH}/{name}/pods", "held", lambda pod: "deletionTimestamp" in pod["metadata"])
    await anyio.sleep(1)  # enough for a sweep over everything, which must not be

    assert (await api.get(policies)).names == ["closed"]
    await api.merge(f"{_PATH}/{name}/pods/held", {"metadata": {"finalizers": None}})
    await api.wait_gone(_PATH, name)


async def test_a_terminating_namespace_takes_nothing_new(api: Api) -> None:
    """403 with a cause."""
    name = f"conformance-{uuid4().hex[:8]}"
    await api.create(_PATH, {"metadata": {"name": name}})
    await api.create(f"{_PATH}/{name}/configmaps", config_map("a", finalizers=["example.com/hold"]))
    await api.delete(f"{_PATH}/{name}")
    answer = await api.request("POST", f"{_PATH}/{name}/configmaps", config_map("b"))

    assert answer.status == 403
    assert answer.json["message"] == (
        f'configmaps "b" is forbidden: unable to create new content in namespace {name} because it is being terminated'
    )
    assert answer.json["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    await api.merge(f"{_PATH}/{name}/configmaps/a", {"metadata": {"finalizers": None}})
    await api.wait_gone(_PATH, name)


async def test_a_namespace_has_a_service_account(api: Api) -> None:
    """Named default."""
    account = await api.wait_for(f"{api.core}/serviceaccounts", "default", lambda account: True)

    assert account["metadata"]["name"] == "default"


async def test_namespaces_are_not_deleted_as_a_collection(api: Api) -> None:
    """405."""
    assert (await api.delete(_PATH, labelSelector="nothing=matches")).status == 405
