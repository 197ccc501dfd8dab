"""What a server refuses in Pods, Services, volumes, ConfigMaps and Secrets: each with the field that is wrong.

A template that works on the embedded server and is refused by a cluster would be found out too late.
"""

from typing import Any

import pytest

from agent_sandbox.testing.conformance import Api, pod

CONTAINER = "spec.containers[0]"
EXEC: dict[str, Any] = {"exec": {"command": ["true"]}}


def mounts(*paths: str, sub: str = "") -> dict[str, Any]:
    """Mounts of the volume ``v``."""
    return {"volumeMounts": [{"name": "v", "mountPath": path, **({"subPath": sub} if sub else {})} for path in paths]}


def variable(**source: Any) -> dict[str, Any]:
    """One variable."""
    return {"env": [{"name": "A", **source}]}


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"ports": [{"containerPort": 80, "name": "Bad_Name"}]}, "ports[0].name"),
        ({"ports": [{"containerPort": 80, "name": "a"}, {"containerPort": 81, "name": "a"}]}, "ports[1].name"),
        ({"env": [{"name": "A=B", "value": "x"}]}, "env[0].name"),
        (variable(value="x", valueFrom={"fieldRef": {"fieldPath": "metadata.name"}}), "env[0].valueFrom"),
        (
            variable(valueFrom={"fieldRef": {"fieldPath": "metadata.nope"}}),
            "env[0].valueFrom.fieldRef.fieldPath",
        ),
        ({"envFrom": [{}]}, "envFrom"),
        (mounts(""), "volumeMounts[0].mountPath"),
        (mounts("/x", "/x"), "volumeMounts[1].mountPath"),
        (mounts("/x", sub="../y"), "volumeMounts.subPath"),
        (mounts("/x", sub="/y"), "volumeMounts.subPath"),
        ({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}, "resources.requests"),
        ({"resources": {"requests": {"cpu": "-1"}}}, "resources.requests[cpu]"),
        ({"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "500M"}}}, "resources.requests"),
        ({"resources": {"requests": {"storage!": "1"}}}, "resources.requests[storage!]"),
        ({"readinessProbe": {**EXEC, "tcpSocket": {"port": 1}}}, "readinessProbe.tcpSocket"),
        ({"readinessProbe": {**EXEC, "periodSeconds": -1}}, "readinessProbe.periodSeconds"),
        ({"readinessProbe": {"exec": {"command": []}}}, "readinessProbe.exec.command"),
        ({"readinessProbe": {"httpGet": {"port": 0, "path": "/"}}}, "readinessProbe.httpGet.port"),
        ({"startupProbe": {"tcpSocket": {"port": "Bad_Name"}}}, "startupProbe.tcpSocket.port"),
        ({"readinessProbe": {"httpGet": {"port": 1, "scheme": "ftp"}}}, "readinessProbe.httpGet.scheme"),
        ({"livenessProbe": {**EXEC, "successThreshold": 2}}, "livenessProbe.successThreshold"),
        ({"lifecycle": {"preStop": {}}}, "lifecycle.preStop"),
        ({"image": " app"}, "image"),
        ({"terminationMessagePolicy": "X"}, "terminationMessagePolicy"),
        ({"securityContext": {"runAsUser": -1}}, "securityContext.runAsUser"),
        ({"securityContext": {"privileged": True, "allowPrivilegeEscalation": False}}, "securityContext"),
    ],
)
async def test_a_container_that_cannot_be_is_refused(api: Api, part: dict[str, Any], field: str) -> None:
    """422 names the field."""
    body = pod("a")
    body["spec"]["volumes"] = [{"name": "v", "emptyDir": {}}]
    body["spec"]["containers"][0].update(part)

    await refused(api, api.pods, body, f"{CONTAINER}.{field}")


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"volumes": [{"name": "v", "emptyDir": {}, "configMap": {"name": "x"}}]}, "volumes[0].configMap"),
        (
            {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": ""}}]},
            "volumes[0].persistentVolumeClaim.claimName",
        ),
        (
            {"volumes": [{"name": "v", "configMap": {"name": "x", "defaultMode": 99999}}]},
            "volumes[0].configMap.defaultMode",
        ),
        (
            {"volumes": [{"name": "v", "configMap": {"name": "x", "items": [{"key": "a", "path": "../b"}]}}]},
            "volumes[0].configMap.items[0].path",
        ),
        ({"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "-1"}}]}, "volumes[0].emptyDir.sizeLimit"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/a/../b"}}]}, "volumes[0].hostPath.path"),
        ({"dnsPolicy": "None"}, "dnsConfig"),
        ({"activeDeadlineSeconds": 0}, "activeDeadlineSeconds"),
        ({"subdomain": "Bad_Name"}, "subdomain"),
        ({"securityContext": {"fsGroup": -1}}, "securityContext.fsGroup"),
        ({"securityContext": {"seccompProfile": {"type": "X"}}}, "securityContext.seccompProfile.type"),
        (
            {"securityContext": {"seccompProfile": {"type": "Localhost"}}},
            "securityContext.seccompProfile.localhostProfile",
        ),
        ({"initContainers": [{"name": "i", "image": "x", "readinessProbe": EXEC}]}, "initContainers[0].readinessProbe"),
        ({"tolerations": [{"operator": "X"}]}, "tolerations[0].operator"),
        ({"tolerations": [{"key": "a", "effect": "X"}]}, "tolerations[0].effect"),
        ({"nodeSelector": {"a b": "c"}}, "nodeSelector"),
        ({"hostAliases": [{"ip": "x", "hostnames": ["a"]}]}, "hostAliases[0].ip"),
        ({"readinessGates": [{"conditionType": "bad type"}]}, "readinessGates[0].conditionType"),
        ({"ephemeralContainers": [{"name": "e", "image": "x"}]}, "ephemeralContainers"),
    ],
)
async def test_a_pod_that_cannot_be_is_refused(api: Api, part: dict[str, Any], field: str) -> None:
    """422 names the field."""
    body = pod("a")
    body["spec"].update(part)

    await refused(api, api.pods, body, f"spec.{field}")


def kind(name: str, **content: Any) -> dict[str, Any]:
    """An object of the core group."""
    return {"apiVersion": "v1", "kind": name, "metadata": {"name": "a"}, **content}


def service(**spec: Any) -> dict[str, Any]:
    """A Service."""
    return kind("Service", spec={"ports": [{"port": 80}], **spec})


def claim(storage: str = "1Gi", **spec: Any) -> dict[str, Any]:
    """A PersistentVolumeClaim."""
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}}
    return kind("PersistentVolumeClaim", spec={**wanted, **spec})


@pytest.mark.parametrize(
    ("plural", "body", "fields"),
    [
        ("services", service(type="X"), {"spec.type"}),
        ("services", service(ports=[{"port": 80, "protocol": "X"}]), {"spec.ports[0].protocol"}),
        ("services", service(ports=[{"port": 80, "name": "Bad_"}]), {"spec.ports[0].name"}),
        ("services", service(ports=[{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]), {"spec.ports[1]"}),
        ("services", service(ports=[{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]), {"spec.ports[1].name"}),
        ("services", service(clusterIP="None", selector={"a b": "c"}), {"spec.selector"}),
        ("services", service(clusterIP="foo"), {"spec.clusterIPs[0]"}),
        ("services", service(sessionAffinity="X"), {"spec.sessionAffinity"}),
        ("services", kind("Service", spec={"type": "ExternalName"}), {"spec.externalName"}),
        ("persistentvolumeclaims", claim(accessModes=["X"]), {"spec.accessModes"}),
        ("persistentvolumeclaims", claim(accessModes=["ReadWriteOnce", "ReadWriteOncePod"]), {"spec.accessModes"}),
        ("persistentvolumeclaims", claim("-1Gi"), {"spec.resources[storage]"}),
        ("persistentvolumeclaims", claim("0"), {"spec.resources[storage]"}),
        ("persistentvolumeclaims", claim(storageClassName="Bad Name"), {"spec.storageClassName"}),
        ("persistentvolumeclaims", claim(volumeMode="X"), {"spec.volumeMode"}),
        ("configmaps", kind("ConfigMap", data={"bad key": "x"}), {"data[bad key]"}),
        ("configmaps", kind("ConfigMap", data={"..": "x"}), {"data[..]"}),
        ("configmaps", kind("ConfigMap", data={"k": "x"}, binaryData={"k": "eA=="}), {"data[k]"}),
        ("secrets", kind("Secret", stringData={"bad key": "x"}), {"data[bad key]"}),
        ("secrets", kind("Secret", type="kubernetes.io/tls"), {"data[tls.crt]", "data[tls.key]"}),
        (
            "secrets",
            kind("Secret", type="kubernetes.io/dockerconfigjson", stringData={"x": "y"}),
            {"data[.dockerconfigjson]"},
        ),
    ],
)
async def test_another_object_that_cannot_be_is_refused(
    api: Api, plural: str, body: dict[str, Any], fields: set[str]
) -> None:
    """422 names the field."""
    await refused(api, api.pods.removesuffix("pods") + plural, body, *fields)


async def test_binary_data_that_is_no_base64_cannot_be_read(api: Api) -> None:
    """400: it is not even of the right form."""
    answer = await api.request(
        "POST", api.pods.removesuffix("pods") + "configmaps", kind("ConfigMap", binaryData={"k": "!!"})
    )

    assert answer.status == 400


async def refused(api: Api, path: str, body: dict[str, Any], *fields: str) -> None:
    """Make sure that the server names these fields and no others."""
    answer = await api.request("POST", path, body)

    assert answer.status == 422, answer.body.decode()
    assert {cause["field"] for cause in answer.json["details"]["causes"]} == set(fields)
