"""Containers, init containers and sidecars: start, end, start again."""

from collections.abc import Mapping

import pytest

from agent_sandbox.testing.pods import (
    EMPTY,
    IMAGE,
    PATIENT,
    Case,
    Observed,
    box,
    done,
    mount,
    once,
    printed,
    ready,
    restarted,
    running,
    waiting,
)

_LIFE = [
    Case("a-command-ends-well", once(box("echo hi")), printed("hi\n"), done),
    Case(
        "a-command-that-fails-fails-its-pod",
        once(box("exit 7")),
        lambda seen: (seen.status["phase"], seen.ended()["exitCode"], seen.ended()["reason"]) == ("Failed", 7, "Error"),
        done,
    ),
    Case(
        "success-is-completed",
        once(box("true")),
        lambda seen: (
            (seen.status["phase"], seen.ended()["exitCode"], seen.ended()["reason"]) == ("Succeeded", 0, "Completed")
        ),
        done,
    ),
    Case(
        "one-failed-container-of-two-fails-the-pod",
        once(box("true"), box("exit 1", "other")),
        lambda seen: seen.status["phase"] == "Failed",
        done,
    ),
    Case(
        "on-failure-repeats-until-success",
        once(
            box("test -f /v/f && exit 0; touch /v/f; exit 1", volumeMounts=[mount("v", "/v")]),
            restartPolicy="OnFailure",
            volumes=[EMPTY],
        ),
        lambda seen: (seen.status["phase"], seen.container()["restartCount"]) == ("Succeeded", 1),
        done,
    ),
    Case(
        "always-repeats-success-too",
        {"containers": [box("true")]},
        lambda seen: seen.container()["lastState"]["terminated"]["exitCode"] == 0,
        restarted(2),
    ),
    Case(
        "a-container-that-keeps-failing-backs-off",
        {"containers": [box("exit 3")]},
        lambda seen: (
            seen.container()["lastState"]["terminated"]["exitCode"] == 3
            and any(event.startswith("BackOff: ") for event in seen.events)
        ),
        waiting("CrashLoopBackOff"),
    ),
    Case(
        "never-does-not-repeat",
        once(box("exit 1")),
        lambda seen: seen.container()["restartCount"] == 0,
        done,
    ),
    Case(
        "a-signal-is-128-plus-its-number",
        once(box("kill -9 $$; sleep 1 & kill -9 $!; wait $!")),
        lambda seen: seen.ended()["exitCode"] == 137,
        done,
    ),
    Case(
        "a-missing-program-cannot-run",
        once({"name": "main", "image": IMAGE, "command": ["no-such-program"]}),
        lambda seen: seen.status["phase"] == "Failed" and seen.ended()["exitCode"] == 128,
        done,
    ),
    Case(
        "the-active-deadline-ends-a-pod",
        once(box("sleep 1000"), activeDeadlineSeconds=1),
        lambda seen: (seen.status["phase"], seen.status["reason"]) == ("Failed", "DeadlineExceeded"),
        done,
    ),
    Case(
        "a-last-word-is-told",
        once(box("echo because > /dev/termination-log; exit 4")),
        lambda seen: seen.ended()["message"] == "because\n",
        done,
    ),
    Case(
        "the-last-word-may-be-elsewhere",
        once(box("echo there > /dev/my-last-word", terminationMessagePath="/dev/my-last-word")),
        lambda seen: seen.ended()["message"] == "there\n",
        done,
    ),
    Case(
        "the-log-speaks-for-who-says-nothing",
        once(box("echo noise >&2; exit 4", terminationMessagePolicy="FallbackToLogsOnError")),
        lambda seen: seen.ended()["message"] == "noise\n",
        done,
    ),
    Case(
        "a-running-pod-has-an-address-and-conditions",
        {"containers": [box("sleep 1000")]},
        lambda seen: (
            seen.status["podIP"]
            and all(
                seen.condition(kind)["status"] == "True"
                for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready", "PodReadyToStartContainers")
            )
        ),
        ready,
    ),
    Case(
        "an-ended-pod-is-not-ready-and-has-no-address",
        once(box("true")),
        lambda seen: seen.condition("Ready")["reason"] == "PodCompleted" and "podIP" not in seen.status,
        done,
    ),
    Case(
        "what-happens-is-told-in-events",
        {"containers": [box("sleep 1000")]},
        lambda seen: (
            [event.partition(":")[0] for event in seen.events][:4] == ["Scheduled", "Pulled", "Created", "Started"]
        ),
        ready,
    ),
    Case(
        "stdout-and-stderr-are-in-the-log",
        once(box("echo 1; echo 2 >&2; echo 3")),
        lambda seen: sorted(seen.logs["main"].split()) == ["1", "2", "3"],
        done,
    ),
    Case("a-last-line-without-end-is-kept", once(box("printf abc")), printed("abc\n"), done),
    Case(
        "the-quality-of-service-is-guaranteed",
        {"containers": [box("sleep 1000", resources={"limits": {"cpu": "1", "memory": "64Mi"}})]},
        lambda seen: seen.status["qosClass"] == "Guaranteed",
        ready,
    ),
    Case(
        "the-quality-of-service-is-burstable",
        {"containers": [box("sleep 1000", resources={"requests": {"cpu": "10m"}})]},
        lambda seen: seen.status["qosClass"] == "Burstable",
        ready,
    ),
    Case(
        "the-quality-of-service-is-best-effort",
        {"containers": [box("sleep 1000")]},
        lambda seen: seen.status["qosClass"] == "BestEffort",
        ready,
    ),
]

_INIT = [
    Case(
        "init-containers-run-one-after-another-before-the-main-ones",
        once(
            box("cat /v/f", volumeMounts=[mount("v", "/v")]),
            initContainers=[
                box("echo 1 >> /v/f", "a", volumeMounts=[mount("v", "/v")]),
                box("echo 2 >> /v/f", "b", volumeMounts=[mount("v", "/v")]),
            ],
            volumes=[EMPTY],
        ),
        printed("1\n2\n"),
        done,
    ),
    Case(
        "a-failed-init-container-fails-a-pod-that-never-restarts",
        once(box("echo never"), initContainers=[box("exit 5", "a")]),
        lambda seen: (
            seen.status["phase"] == "Failed"
            and seen.ended("a")["exitCode"] == 5
            and "main" not in seen.logs
            and seen.condition("Initialized")["status"] == "False"
        ),
        done,
    ),
    Case(
        "an-init-container-is-repeated-until-it-succeeds",
        {
            "containers": [box("sleep 1000")],
            "initContainers": [box("test -f /v/f && exit 0; touch /v/f; exit 1", "a", volumeMounts=[mount("v", "/v")])],
            "volumes": [EMPTY],
        },
        lambda seen: seen.container("a")["restartCount"] == 1,
        ready,
    ),
    Case(
        "a-sidecar-starts-before-and-ends-after-the-main-container",
        once(
            box("until test -f /v/up; do sleep 0.02; done; echo saw", volumeMounts=[mount("v", "/v")]),
            initContainers=[
                box("touch /v/up; sleep 1000", "side", volumeMounts=[mount("v", "/v")], restartPolicy="Always")
            ],
            volumes=[EMPTY],
        ),
        lambda seen: seen.status["phase"] == "Succeeded" and seen.logs["main"] == "saw\n" and seen.ended("side"),
        done,
    ),
    Case(
        "a-sidecar-that-ends-starts-again",
        {
            "containers": [box("sleep 1000")],
            "initContainers": [box("sleep 0.05", "side", restartPolicy="Always")],
        },
        lambda seen: seen.container()["restartCount"] == 0,
        restarted(1, "side"),
    ),
    Case(
        "the-readiness-of-a-sidecar-counts",
        {
            "containers": [box("sleep 1000")],
            "initContainers": [
                box(
                    "sleep 1000",
                    "side",
                    restartPolicy="Always",
                    readinessProbe={"exec": {"command": ["false"]}, "periodSeconds": 1},
                )
            ],
        },
        lambda seen: seen.container()["ready"] and "side" in seen.condition("Ready")["message"],
        lambda pod: running(pod) and pod["status"]["containerStatuses"][0]["ready"],
    ),
    Case(
        "a-main-container-waits-for-the-startup-probe-of-a-sidecar",
        once(
            box("cat /v/up", volumeMounts=[mount("v", "/v")]),
            initContainers=[
                box(
                    "sleep 0.2; echo up > /v/up; sleep 1000",
                    "side",
                    volumeMounts=[mount("v", "/v")],
                    restartPolicy="Always",
                    startupProbe={"exec": {"command": ["test", "-s", "/v/up"]}, "periodSeconds": 1, **PATIENT},
                )
            ],
            volumes=[EMPTY],
        ),
        printed("up\n"),
        done,
    ),
]


CASES = [*_LIFE, *_INIT]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_pod_becomes_what_a_kubelet_makes_of_it(case: Case, observed: Mapping[str, Observed]) -> None:
    seen = observed[case.name]

    assert case.expect(seen), f"{seen.logs} {seen.events} {seen.result} {seen.status}"
