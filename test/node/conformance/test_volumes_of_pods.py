"""Volumes of every kind that this node has."""

from collections.abc import Mapping

import pytest

from agent_sandbox.testing.pods import (
    EMPTY,
    Case,
    Observed,
    box,
    claim,
    config_map,
    done,
    lines,
    mount,
    once,
    printed,
    secret,
    waiting,
)

_VOLUMES = [
    Case(
        "an-empty-directory-outlives-a-container-and-is-shared",
        once(
            box("cat /b/f", volumeMounts=[mount("v", "/b")]),
            initContainers=[box("echo x > /a/f", "a", volumeMounts=[mount("v", "/a")])],
            volumes=[EMPTY],
        ),
        printed("x\n"),
        done,
    ),
    Case(
        "an-empty-directory-in-memory-is-a-tmpfs-of-its-size",
        once(
            box(
                "grep -q ' /m ' /proc/mounts && (head -c 2000000 /dev/zero > /m/f 2>/dev/null || echo full)",
                volumeMounts=[mount("m", "/m")],
            ),
            volumes=[{"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
        ),
        lambda seen: seen.logs["main"].endswith("full\n"),
        done,
    ),
    Case(
        "a-config-map-is-files",
        once(
            box("cat /c/a /c/b; cd /c; echo *", volumeMounts=[mount("c", "/c")]),
            volumes=[{"name": "c", "configMap": {"name": "vol-map"}}],
        ),
        lines("1", "2", "a", "b"),
        done,
        [config_map("vol-map", a="1\n", b="2\n")],
    ),
    Case(
        "items-choose-keys-and-paths-and-modes",
        once(
            box("cat /c/x/y; find -L /c/x/y -perm 0440; cd /c; echo *", volumeMounts=[mount("c", "/c")]),
            volumes=[
                {
                    "name": "c",
                    "configMap": {"name": "item-map", "items": [{"key": "a", "path": "x/y", "mode": 0o440}]},
                }
            ],
        ),
        lambda seen: seen.logs["main"].split()[:2] == ["1", "/c/x/y"] and seen.logs["main"].endswith("\nx\n"),
        done,
        [config_map("item-map", a="1\n", b="2\n")],
    ),
    Case(
        "a-secret-is-files-with-the-default-mode",
        once(
            box("cat /s/key; find -L /s/key -perm 0400", volumeMounts=[mount("s", "/s")]),
            volumes=[{"name": "s", "secret": {"secretName": "vol-secret", "defaultMode": 0o400}}],
        ),
        lines("hush", "/s/key"),
        done,
        [secret("vol-secret", key="hush\n")],
    ),
    Case(
        "nobody-writes-to-a-config-map",
        once(
            box("(echo x > /c/a) 2>/dev/null || echo refused", volumeMounts=[mount("c", "/c")]),
            volumes=[{"name": "c", "configMap": {"name": "ro-map"}}],
        ),
        lambda seen: seen.logs["main"].endswith("refused\n"),
        done,
        [config_map("ro-map", a="1")],
    ),
    Case(
        "fields-of-the-pod-are-files",
        once(
            box("cat /d/name; echo; cat /d/labels; echo; cat /d/cpu", volumeMounts=[mount("d", "/d")]),
            volumes=[
                {
                    "name": "d",
                    "downwardAPI": {
                        "items": [
                            {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
                            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                            {
                                "path": "cpu",
                                "resourceFieldRef": {
                                    "containerName": "main",
                                    "resource": "limits.cpu",
                                    "divisor": "1m",
                                },
                            },
                        ]
                    },
                }
            ],
        )
        | {
            "containers": [
                box(
                    "cat /d/name; echo; cat /d/labels; echo; cat /d/cpu",
                    volumeMounts=[mount("d", "/d")],
                    resources={"limits": {"cpu": "250m"}},
                )
            ]
        },
        printed('fields-of-the-pod-are-files\ntier="gold"\n250\n'),
        done,
        metadata={"labels": {"tier": "gold"}},
    ),
    Case(
        "several-sources-are-projected-into-one",
        once(
            box("cat /p/a /p/key /p/me", volumeMounts=[mount("p", "/p")]),
            volumes=[
                {
                    "name": "p",
                    "projected": {
                        "sources": [
                            {"configMap": {"name": "pro-map"}},
                            {"secret": {"name": "pro-secret"}},
                            {"downwardAPI": {"items": [{"path": "me", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                        ]
                    },
                }
            ],
        ),
        printed("1\n2\nseveral-sources-are-projected-into-one\n"),
        done,
        [config_map("pro-map", a="1\n"), secret("pro-secret", key="2\n")],
    ),
    Case(
        "one-key-of-a-config-map-is-mounted-as-a-file",
        once(
            box("cat /srv/app.conf", volumeMounts=[mount("c", "/srv/app.conf", subPath="a")]),
            volumes=[{"name": "c", "configMap": {"name": "sub-map"}}],
        ),
        printed("1\n"),
        done,
        [config_map("sub-map", a="1\n")],
    ),
    Case(
        "an-optional-config-map-may-be-absent",
        once(
            box("cd /c; echo *", volumeMounts=[mount("c", "/c")]),
            volumes=[{"name": "c", "configMap": {"name": "absent", "optional": True}}],
        ),
        printed("*\n"),
        done,
    ),
    Case(
        "a-config-map-that-is-absent-is-waited-for-and-told",
        {
            "containers": [box("true", volumeMounts=[mount("c", "/c")])],
            "volumes": [{"name": "c", "configMap": {"name": "absent-volume"}}],
        },
        lambda seen: (
            seen.status["phase"] == "Pending"
            and any("FailedMount" in event and "absent-volume" in event for event in seen.events)
        ),
        waiting("CreateContainerConfigError"),
    ),
    Case(
        "a-claim-is-mounted-and-belongs-to-the-pod",
        once(
            box("echo kept > /d/f && cat /d/f && cd /d && echo .[!.]* *", volumeMounts=[mount("d", "/d")]),
            volumes=[{"name": "d", "persistentVolumeClaim": {"claimName": "claim-a"}}],
        ),
        lines("kept", ".[!.]*", "f"),
        done,
        [claim("claim-a")],
    ),
    Case(
        "a-claim-may-be-mounted-read-only",
        once(
            box("touch /d/f 2>/dev/null || echo refused", volumeMounts=[mount("d", "/d", readOnly=True)]),
            volumes=[{"name": "d", "persistentVolumeClaim": {"claimName": "claim-ro"}}],
        ),
        lambda seen: seen.logs["main"].endswith("refused\n"),
        done,
        [claim("claim-ro")],
    ),
    Case(
        "part-of-a-volume-is-mounted",
        once(
            box("cat /d/x/y/f", volumeMounts=[mount("v", "/d")]),
            initContainers=[box("echo 1 > /part/f", "a", volumeMounts=[mount("v", "/part", subPath="x/y")])],
            volumes=[EMPTY],
        ),
        printed("1\n"),
        done,
    ),
    Case(
        "a-claim-that-is-absent-keeps-the-pod-pending",
        {
            "containers": [box("true", volumeMounts=[mount("d", "/d")])],
            "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "no-claim"}}],
        },
        lambda seen: seen.status["phase"] == "Pending",
        lambda pod: "no-claim" in str(pod["status"]),
    ),
    Case(
        "no-file-grows-beyond-the-limit-of-ephemeral-storage",
        once(
            box(
                "cd /v; head -c 9000000 /dev/zero > big 2>/dev/null || echo stopped; find big -size -2049k",
                volumeMounts=[mount("v", "/v")],
                resources={"limits": {"ephemeral-storage": "2Mi"}},
            ),
            volumes=[EMPTY],
        ),
        lines("stopped", "big"),
        done,
    ),
    Case(
        "a-volume-of-an-unknown-kind-is-refused-by-name",
        {
            "containers": [box("true", volumeMounts=[mount("n", "/n")])],
            "volumes": [{"name": "n", "nfs": {"server": "x", "path": "/"}}],
        },
        lambda seen: "nfs" in str(seen.status),
        waiting("CreateContainerConfigError"),
    ),
]


CASES = [*_VOLUMES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_pod_becomes_what_a_kubelet_makes_of_it(case: Case, observed: Mapping[str, Observed]) -> None:
    seen = observed[case.name]

    assert case.expect(seen), f"{seen.logs} {seen.events} {seen.result} {seen.status}"
