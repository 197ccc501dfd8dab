"""Users and rights, and what is refused."""

from collections.abc import Mapping

import pytest

from agent_sandbox.testing.pods import (
    Case,
    Observed,
    box,
    done,
    execute,
    lines,
    once,
    printed,
    ready,
    unscheduled,
    waiting,
)

_SECURITY = [
    Case(
        "a-user-and-a-group-are-honoured",
        once(box("id -u; id -g"), securityContext={"runAsUser": 4242, "runAsGroup": 4343}),
        lines("4242", "4343"),
        done,
    ),
    Case(
        "a-containers-user-wins-over-the-pods",
        once(box("id -u", securityContext={"runAsUser": 7}), securityContext={"runAsUser": 8}),
        printed("7\n"),
        done,
    ),
    Case(
        "a-command-in-a-container-runs-as-its-user-and-group",
        {"containers": [box("sleep 1000")], "securityContext": {"runAsUser": 4242, "runAsGroup": 4343}},
        lambda seen: seen.result[:2] == (0, "4242\n4343\n"),
        ready,
        act=execute("sh", "-c", "id -u; id -g"),
    ),
    Case(
        "root-is-refused-where-it-is-forbidden",
        {"containers": [box("true", securityContext={"runAsNonRoot": True, "runAsUser": 0})]},
        lambda seen: "runAsNonRoot" in seen.container()["state"]["waiting"]["message"],
        waiting("CreateContainerConfigError"),
    ),
    Case(
        "a-read-only-root-is-read-only",
        once(box("touch /x 2>/dev/null || echo refused", securityContext={"readOnlyRootFilesystem": True})),
        printed("refused\n"),
        done,
    ),
    Case(
        "nobody-has-a-capability",
        once(box("grep -h '^Cap[EPB]' /proc/self/status")),
        lambda seen: {line.split()[1].strip("0") for line in seen.logs["main"].splitlines()} == {""},
        done,
    ),
]

_REFUSED = [
    Case(f"{name}-is-refused", {"containers": [box("true")], **spec}, expect, unscheduled)
    for name, spec, expect in (
        ("the-hosts-network", {"hostNetwork": True}, lambda seen: "hostNetwork" in str(seen.status)),
        ("the-hosts-processes", {"hostPID": True}, lambda seen: "hostPID" in str(seen.status)),
        ("the-hosts-ipc", {"hostIPC": True}, lambda seen: "hostIPC" in str(seen.status)),
        (
            "a-path-of-the-host",
            {"volumes": [{"name": "h", "hostPath": {"path": "/"}}]},
            lambda seen: "hostPath" in str(seen.status),
        ),
        ("an-unknown-node", {"nodeSelector": {"gpu": "yes"}}, lambda seen: "gpu=yes" in str(seen.status)),
        ("a-shared-process-table", {"shareProcessNamespace": True}, lambda seen: "shareProcess" in str(seen.status)),
        (
            "privilege",
            {"containers": [box("true", securityContext={"privileged": True})]},
            lambda seen: "privileged" in str(seen.status),
        ),
        (
            "more-than-the-node-has",
            {"containers": [box("true", resources={"requests": {"memory": "900Ti"}})]},
            lambda seen: (
                "Insufficient memory" in seen.condition("PodScheduled")["message"]
                and seen.condition("PodScheduled")["reason"] == "Unschedulable"
            ),
        ),
    )
] + [
    Case(
        "the-nodes-own-labels-select-it",
        once(box("true"), nodeSelector={"kubernetes.io/os": "linux", "kubernetes.io/hostname": "local"}),
        lambda seen: seen.pod["spec"]["nodeName"] == "local",
        done,
    ),
    Case(
        "an-image-that-does-not-exist-is-named",
        {"containers": [{"name": "main", "image": "localhost/none:1", "command": ["true"]}]},
        lambda seen: (
            "localhost/none:1" in str(seen.status) and any(event.startswith("Failed:") for event in seen.events)
        ),
        lambda pod: waiting("ErrImagePull")(pod) or waiting("ImagePullBackOff")(pod),
    ),
    Case(
        "an-image-is-not-pulled-where-it-never-shall",
        {
            "containers": [
                {"name": "main", "image": "localhost/none:1", "imagePullPolicy": "Never", "command": ["true"]}
            ]
        },
        lambda seen: "Never" in seen.container()["state"]["waiting"]["message"],
        waiting("ErrImageNeverPull"),
    ),
]


CASES = [*_SECURITY, *_REFUSED]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_pod_becomes_what_a_kubelet_makes_of_it(case: Case, observed: Mapping[str, Observed]) -> None:
    seen = observed[case.name]

    assert case.expect(seen), f"{seen.logs} {seen.events} {seen.result} {seen.status}"
