"""Words for tests of a node: a Pod spec, when to look at it, and what must be true then.

``IMAGE`` stands for an image with a shell; each runtime has its own.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]

IMAGE = "IMAGE"
"""Replaced by the image that the runtime under test has."""


@dataclass(frozen=True)
class Observed:
    """A Pod at the moment of looking.

    Attributes:
        pod: as the API server has it.
        logs: output by container; of containers that ran.
        events: ``reason: note`` of its Events.
        result: what ``act`` returned.
    """

    pod: Json
    logs: Mapping[str, str]
    events: Sequence[str]
    result: Any = None

    @property
    def status(self) -> Json:
        """Its status."""
        found: Json = self.pod["status"]
        return found

    def container(self, name: str = "main") -> Json:
        """The status of one container."""
        status = self.pod["status"]
        every = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
        found: Json = next(entry for entry in every if entry["name"] == name)
        return found

    def ended(self, name: str = "main") -> Json:
        """How a container ended."""
        found: Json = self.container(name)["state"]["terminated"]
        return found

    def condition(self, kind: str) -> Json:
        """One condition; empty if it is not there."""
        found: Json = next((entry for entry in self.status.get("conditions") or [] if entry["type"] == kind), {})
        return found


Predicate = Callable[[Json], bool]
Act = Callable[[Any, str], Awaitable[Any]]


@dataclass(frozen=True)
class Case:
    """One Pod and what is expected of it.

    Attributes:
        name: a sentence, with dashes.
        spec: the Pod's spec.
        expect: true of what was observed.
        until: when to look.
        objects: what must exist before it.
        metadata: labels and annotations.
        act: something to do once ``until`` holds, before looking.
    """

    name: str
    spec: Json
    expect: Callable[[Observed], object]
    until: Predicate
    objects: Sequence[Json] = ()
    metadata: Json = field(default_factory=dict)
    act: Act | None = None


def box(script: str, name: str = "main", **more: Any) -> Json:
    """A container that runs a shell script."""
    return {"name": name, "image": IMAGE, "command": ["sh", "-c", script], **more}


def once(*containers: Json, **spec: Any) -> Json:
    """A Pod that runs its containers once."""
    return {"containers": list(containers), "restartPolicy": "Never", **spec}


# When to look


def done(pod: Json) -> bool:
    """Whether it ended."""
    return pod["status"].get("phase") in {"Succeeded", "Failed"}


def ready(pod: Json) -> bool:
    """Whether it is Ready."""
    return any(
        entry["type"] == "Ready" and entry["status"] == "True" for entry in pod["status"].get("conditions") or []
    )


def unscheduled(pod: Json) -> bool:
    """Whether it was refused."""
    return any(
        entry["type"] == "PodScheduled" and entry["status"] == "False"
        for entry in pod["status"].get("conditions") or []
    )


def waiting(reason: str) -> Predicate:
    """Whether a container waits for this reason."""

    def holds(pod: Json) -> bool:
        status = pod["status"]
        every = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
        return any((entry["state"].get("waiting") or {}).get("reason") == reason for entry in every)

    return holds


def restarted(times: int, name: str = "main") -> Predicate:
    """Whether a container was started again so often."""

    def holds(pod: Json) -> bool:
        status = pod["status"]
        every = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
        return any(entry["name"] == name and entry["restartCount"] >= times for entry in every)

    return holds


def running(pod: Json) -> bool:
    """Whether it runs."""
    return bool(pod["status"].get("phase") == "Running")


# What to expect


def printed(text: str, name: str = "main") -> Callable[[Observed], object]:
    """A container printed exactly this."""
    return lambda seen: seen.logs[name] == text


def lines(*words: str) -> Callable[[Observed], object]:
    """The container ``main`` printed these words."""
    return lambda seen: seen.logs["main"].split() == list(words)


def config_map(name: str, **data: str) -> Json:
    """A ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}


def secret(name: str, **data: str) -> Json:
    """A Secret."""
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": data}


def claim(name: str, size: str = "8Mi") -> Json:
    """A PersistentVolumeClaim."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
    }


def mount(name: str, path: str, **more: Any) -> Json:
    """A volume mount."""
    return {"name": name, "mountPath": path, **more}


def field_env(name: str, path: str) -> Json:
    """A variable from a field of the Pod."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def resource_env(name: str, resource: str, divisor: str = "") -> Json:
    """A variable from a limit or request."""
    source = {"resource": resource, **({"divisor": divisor} if divisor else {})}
    return {"name": name, "valueFrom": {"resourceFieldRef": source}}


def execute(*command: str) -> Act:
    """Run a command in ``main``: exit code, output, error output."""

    async def act(stack: Any, name: str) -> Any:
        session = await stack.execute(name, "main", list(command))
        return session.code, session.out.decode(), session.err.decode()

    return act


def delete(**options: Any) -> Act:
    """Delete the Pod while its log is followed; how long that took, and what it printed."""

    async def act(stack: Any, name: str) -> Any:
        return await stack.delete_while_following(name, **options)

    return act


PATIENT: Final[Json] = {"timeoutSeconds": 60, "failureThreshold": 60}
"""For a probe that shall succeed in the end, however slow the machine; the defaults are one second, three times."""
EMPTY: Final[Json] = {"name": "v", "emptyDir": {}}
"""An empty directory, as a volume."""
