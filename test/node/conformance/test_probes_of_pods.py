"""Probes, hooks and gates."""

from collections.abc import Mapping

import pytest

from agent_sandbox.testing.pods import (
    PATIENT,
    Case,
    Observed,
    box,
    done,
    once,
    printed,
    ready,
    restarted,
    running,
)

_PROBES = [
    Case(
        "a-readiness-probe-by-command-makes-ready",
        {
            "containers": [
                box(
                    "sleep 0.2; touch /tmp/up; sleep 1000",
                    readinessProbe={"exec": {"command": ["test", "-f", "/tmp/up"]}, "periodSeconds": 1, **PATIENT},
                )
            ]
        },
        lambda seen: seen.container()["ready"],
        ready,
    ),
    Case(
        "who-fails-its-readiness-probe-runs-unready",
        {"containers": [box("sleep 1000", readinessProbe={"exec": {"command": ["false"]}, "failureThreshold": 1})]},
        lambda seen: not seen.container()["ready"] and seen.container()["started"],
        running,
    ),
    Case(
        "a-failed-liveness-probe-restarts-the-container",
        {
            "containers": [
                box(
                    "sleep 1000",
                    livenessProbe={"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1},
                )
            ]
        },
        lambda seen: (
            any("Liveness probe failed" in event for event in seen.events)
            and any("will be restarted" in event for event in seen.events)
        ),
        restarted(1),
    ),
    Case(
        "a-liveness-probe-waits-for-the-startup-probe",
        {
            "containers": [
                box(
                    "sleep 0.5; touch /tmp/up; sleep 1000",
                    startupProbe={"exec": {"command": ["test", "-f", "/tmp/up"]}, "periodSeconds": 1, **PATIENT},
                    livenessProbe={"exec": {"command": ["test", "-f", "/tmp/up"]}, **PATIENT, "failureThreshold": 1},
                )
            ]
        },
        lambda seen: seen.container()["restartCount"] == 0,
        ready,
    ),
    Case(
        "who-never-starts-up-is-restarted",
        {
            "containers": [
                box(
                    "sleep 1000",
                    startupProbe={"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1},
                )
            ]
        },
        lambda seen: any("Startup probe failed" in event for event in seen.events),
        restarted(1),
    ),
    Case(
        "a-probe-by-tcp-to-a-closed-port-fails",
        {
            "containers": [
                box(
                    "sleep 1000",
                    livenessProbe={"tcpSocket": {"port": 9999}, "periodSeconds": 1, "failureThreshold": 1},
                )
            ]
        },
        lambda seen: any("Connection refused" in event for event in seen.events),
        restarted(1),
    ),
    Case(
        "a-slow-probe-times-out",
        {
            "containers": [
                box(
                    "sleep 1000",
                    livenessProbe={
                        "exec": {"command": ["sleep", "30"]},
                        "timeoutSeconds": 1,
                        "periodSeconds": 1,
                        "failureThreshold": 1,
                    },
                )
            ]
        },
        lambda seen: any("no answer within 1 s" in event for event in seen.events),
        restarted(1),
    ),
    Case(
        "a-hook-runs-after-the-start",
        once(
            box(
                "until test -f /tmp/hook; do sleep 0.02; done; echo seen",
                lifecycle={"postStart": {"exec": {"command": ["touch", "/tmp/hook"]}}},
            )
        ),
        printed("seen\n"),
        done,
    ),
    Case(
        "a-failed-start-hook-ends-the-container",
        once(box("sleep 1000", lifecycle={"postStart": {"exec": {"command": ["false"]}}})),
        lambda seen: any(event.startswith("FailedPostStartHook") for event in seen.events),
        done,
    ),
    Case(
        "a-readiness-gate-keeps-a-pod-unready",
        {"containers": [box("sleep 1000")], "readinessGates": [{"conditionType": "example.com/ok"}]},
        lambda seen: (
            seen.condition("Ready")["reason"] == "ReadinessGatesNotReady"
            and seen.condition("ContainersReady")["status"] == "True"
        ),
        lambda pod: running(pod) and pod["status"]["containerStatuses"][0]["ready"],
    ),
]


CASES = [*_PROBES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_pod_becomes_what_a_kubelet_makes_of_it(case: Case, observed: Mapping[str, Observed]) -> None:
    seen = observed[case.name]

    assert case.expect(seen), f"{seen.logs} {seen.events} {seen.result} {seen.status}"
