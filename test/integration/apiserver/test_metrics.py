"""What the embedded server counts."""

import re
from collections import Counter

import pytest

from agent_sandbox.kube import KubeClient, MergePatch, NotFoundError
from agent_sandbox.testing import InMemoryApiServer
from agent_sandbox_api.core import MetaOnlyView
from agent_sandbox_api.resource import Resource

CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", MetaOnlyView)
THINGS = Resource("example.com", "v1", "things", "Thing", MetaOnlyView)


async def test_requests_are_counted_under_the_names_of_kube_apiserver() -> None:
    async with InMemoryApiServer() as server:
        client = KubeClient(server.transport())
        for name in ("a", "b"):
            await client.create(CONFIG_MAPS, {"metadata": {"name": name}}, "default")
        await client.patch(CONFIG_MAPS, "a", MergePatch({"data": {"x": "y"}}), "default")
        await client.list(CONFIG_MAPS, "default")
        with pytest.raises(NotFoundError):
            await client.get(THINGS, "a", "default")

        text = (await client.request("GET", "/metrics")).body.decode()

    counted: Counter[tuple[str, str, str]] = Counter()
    for labels, value in re.findall(r"^apiserver_request_total\{([^}]*)\} ([0-9.]+)", text, re.MULTILINE):
        found = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if found["resource"] == "configmaps":
            counted[found["verb"], found["code"], found["scope"]] += int(float(value))
    assert counted == {
        ("POST", "201", "namespace"): 2,
        ("PATCH", "200", "resource"): 1,
        ("LIST", "200", "namespace"): 1,
    }
    assert "things" not in text, "a label that any caller may choose"
    assert "process_cpu_seconds_total" in text
