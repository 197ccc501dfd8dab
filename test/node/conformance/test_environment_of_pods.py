"""Variables, names and directories of containers."""

from collections.abc import Mapping

import pytest

from agent_sandbox.testing.pods import (
    IMAGE,
    Case,
    Observed,
    box,
    config_map,
    done,
    field_env,
    lines,
    once,
    printed,
    resource_env,
    secret,
    waiting,
)

_ENVIRONMENT = [
    Case("a-variable-is-set", once(box("echo $A", env=[{"name": "A", "value": "1"}])), printed("1\n"), done),
    Case(
        "a-variable-may-use-earlier-ones",
        once(
            box(
                "echo $B $C",
                env=[
                    {"name": "A", "value": "1"},
                    {"name": "B", "value": "$(A)-$(NONE)"},
                    {"name": "C", "value": "$$(A)"},
                ],
            )
        ),
        lines("1-$(NONE)", "$(A)"),
        done,
    ),
    Case(
        "a-command-may-use-variables",
        once(
            {
                "name": "main",
                "image": IMAGE,
                "command": ["sh", "-c", "echo $0 $1"],
                "args": ["$(A)", "$$(A)"],
                "env": [{"name": "A", "value": "x"}],
            }
        ),
        lines("x", "$(A)"),
        done,
    ),
    Case(
        "fields-of-the-pod-are-variables",
        once(
            box(
                "echo $NAME $SPACE $NODE $ACCOUNT $LABEL",
                env=[
                    field_env("NAME", "metadata.name"),
                    field_env("SPACE", "metadata.namespace"),
                    field_env("NODE", "spec.nodeName"),
                    field_env("ACCOUNT", "spec.serviceAccountName"),
                    field_env("LABEL", "metadata.labels['tier']"),
                ],
            )
        ),
        lines("fields-of-the-pod-are-variables", "default", "local", "default", "gold"),
        done,
        metadata={"labels": {"tier": "gold"}},
    ),
    Case(
        "the-address-and-uid-are-variables",
        once(box("echo $IP; echo $ID", env=[field_env("IP", "status.podIP"), field_env("ID", "metadata.uid")])),
        lambda seen: (
            seen.logs["main"].split()[0].startswith("10.88.")
            and seen.logs["main"].split()[1] == seen.pod["metadata"]["uid"]
        ),
        done,
    ),
    Case(
        "limits-and-requests-are-variables",
        once(
            box(
                "echo $CPU $MILLI $MEMORY $ASKED",
                env=[
                    resource_env("CPU", "limits.cpu"),
                    resource_env("MILLI", "limits.cpu", "1m"),
                    resource_env("MEMORY", "limits.memory", "1Mi"),
                    resource_env("ASKED", "requests.memory", "1Mi"),
                ],
                resources={"limits": {"cpu": "300m", "memory": "64Mi"}, "requests": {"memory": "32Mi"}},
            )
        ),
        lines("1", "300", "64", "32"),
        done,
    ),
    Case(
        "a-limit-that-is-not-set-is-the-nodes-capacity",
        once(
            box(
                "test $CPU -ge 1 && test $MEMORY -gt 100 && echo yes",
                env=[resource_env("CPU", "limits.cpu"), resource_env("MEMORY", "limits.memory", "1Mi")],
            )
        ),
        printed("yes\n"),
        done,
    ),
    Case(
        "variables-come-from-a-config-map-and-a-secret",
        once(
            box(
                "echo $A $B",
                env=[
                    {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "env-map", "key": "a"}}},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "env-secret", "key": "b"}}},
                ],
            )
        ),
        lines("1", "2"),
        done,
        [config_map("env-map", a="1"), secret("env-secret", b="2")],
    ),
    Case(
        "all-keys-of-an-object-become-variables-and-env-wins",
        once(
            box(
                "echo $P_a $a $c",
                envFrom=[
                    {"prefix": "P_", "configMapRef": {"name": "all-map"}},
                    {"secretRef": {"name": "all-secret"}},
                ],
                env=[{"name": "c", "value": "own"}],
            )
        ),
        lines("1", "s", "own"),
        done,
        [config_map("all-map", a="1"), secret("all-secret", a="s", c="other")],
    ),
    Case(
        "an-optional-source-may-be-absent",
        once(
            box(
                "echo [$A]",
                env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "a", "optional": True}}}],
                envFrom=[{"secretRef": {"name": "absent", "optional": True}}],
            )
        ),
        printed("[]\n"),
        done,
    ),
    Case(
        "a-required-source-that-is-absent-is-waited-for",
        {"containers": [box("true", envFrom=[{"configMapRef": {"name": "absent-map"}}])]},
        lambda seen: "absent-map" in seen.container()["state"]["waiting"]["message"],
        waiting("CreateContainerConfigError"),
    ),
    Case(
        "the-host-name-is-the-pods",
        once(box("echo $HOSTNAME; cat /etc/hostname")),
        lines("the-host-name-is-the-pods", "the-host-name-is-the-pods"),
        done,
    ),
    Case("another-host-name-may-be-given", once(box("cat /etc/hostname"), hostname="other"), printed("other\n"), done),
    Case(
        "host-aliases-are-in-the-hosts-file",
        once(box("grep -c 'alpha' /etc/hosts"), hostAliases=[{"ip": "10.0.0.9", "hostnames": ["alpha", "beta"]}]),
        printed("1\n"),
        done,
    ),
    Case(
        "nothing-of-the-hosts-environment-is-inside",
        once(box("echo [$VIRTUAL_ENV$PYTEST_CURRENT_TEST$USER]")),
        printed("[]\n"),
        done,
    ),
    Case("a-working-directory-is-made", once(box("pwd", workingDir="/srv/deep/er")), printed("/srv/deep/er\n"), done),
]


CASES = [*_ENVIRONMENT]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_pod_becomes_what_a_kubelet_makes_of_it(case: Case, observed: Mapping[str, Observed]) -> None:
    seen = observed[case.name]

    assert case.expect(seen), f"{seen.logs} {seen.events} {seen.result} {seen.status}"
