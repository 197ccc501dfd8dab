"""Commands in containers, and their end."""

from collections.abc import Mapping

import pytest

from agent_sandbox.testing.pods import EMPTY, Case, Observed, box, delete, execute, mount, ready

_ACCESS = [
    Case(
        "a-command-runs-in-a-container-and-its-code-is-told",
        {"containers": [box("sleep 1000")]},
        lambda seen: seen.result == (3, "out\n", "err\n"),
        ready,
        act=execute("sh", "-c", "echo out; echo err >&2; exit 3"),
    ),
    Case(
        "a-command-has-the-containers-environment",
        {"containers": [box("sleep 1000", env=[{"name": "A", "value": "1"}])]},
        lambda seen: seen.result[1] == "1\n",
        ready,
        act=execute("sh", "-c", "echo $A"),
    ),
    Case(
        "a-command-that-does-not-exist-says-so",
        {"containers": [box("sleep 1000")]},
        lambda seen: seen.result[0] != 0 and "no-such-program" in seen.result[1] + seen.result[2],
        ready,
        act=execute("no-such-program"),
    ),
    Case(
        "a-process-that-heeds-the-signal-ends-by-itself",
        {"containers": [box("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done")]},
        lambda seen: seen.result[1].splitlines()[-1] == "bye" and seen.result[0] < 100,
        ready,
        act=delete(),
    ),
    Case(
        "who-does-not-heed-the-signal-is-killed-after-the-grace",
        {
            "containers": [box("trap : TERM; echo up; while :; do sleep 0.05; done")],
            "terminationGracePeriodSeconds": 1,
        },
        lambda seen: 0.9 < seen.result[0] < 100,
        ready,
        act=delete(),
    ),
    Case(
        "a-delete-may-have-a-grace-of-its-own",
        {
            "containers": [box("trap : TERM; echo up; while :; do sleep 0.05; done")],
            "terminationGracePeriodSeconds": 3600,
        },
        lambda seen: 0.9 < seen.result[0] < 100,
        ready,
        act=delete(grace_period_seconds=1),
    ),
    Case(
        "a-hook-runs-before-the-end",
        {
            "containers": [
                box(
                    "trap 'cat /tmp/hook; exit 0' TERM; echo up; while :; do sleep 0.05; done",
                    lifecycle={"preStop": {"exec": {"command": ["sh", "-c", "echo stopping > /tmp/hook"]}}},
                )
            ]
        },
        lambda seen: seen.result[1] == "up\nstopping\n",
        ready,
        act=delete(),
    ),
    Case(
        "a-hook-may-only-sleep",
        {"containers": [box("echo up; sleep 1000", lifecycle={"preStop": {"sleep": {"seconds": 1}}})]},
        lambda seen: 0.9 < seen.result[0] < 100,
        ready,
        act=delete(),
    ),
    Case(
        "sidecars-end-after-the-containers-that-need-them",
        {
            "containers": [
                box(
                    "trap 'sleep 0.3; cat /v/log; exit 0' TERM; echo up; while :; do sleep 0.05; done",
                    volumeMounts=[mount("v", "/v")],
                )
            ],
            "initContainers": [
                box(
                    "touch /v/log; trap 'echo gone > /v/log; exit 0' TERM; while :; do sleep 0.05; done",
                    "side",
                    restartPolicy="Always",
                    volumeMounts=[mount("v", "/v")],
                )
            ],
            "volumes": [EMPTY],
        },
        lambda seen: seen.result[1] == "up\n",
        ready,
        act=delete(),
    ),
]


CASES = [*_ACCESS]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_pod_becomes_what_a_kubelet_makes_of_it(case: Case, observed: Mapping[str, Observed]) -> None:
    seen = observed[case.name]

    assert case.expect(seen), f"{seen.logs} {seen.events} {seen.result} {seen.status}"
