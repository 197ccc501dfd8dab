"""Variables and commands of containers, by Kubernetes' rules."""

import pytest

from agent_sandbox.local.node.environment import Facts, container_command, container_environment, expand, pod_field
from agent_sandbox.local.node.errors import ContainerError
from agent_sandbox.local.node.pods import (
    Container,
    EnvFrom,
    EnvFromRef,
    EnvSource,
    EnvVar,
    FieldSelector,
    KeySelector,
    Pod,
)
from agent_sandbox_api.views import MetaView

POD = Pod(MetaView(name="web", namespace="team", uid="u-1", labels={"app": "x", "tier": "y"}))
FACTS = Facts(POD, "10.88.0.2", "127.0.0.1", "local", {"conf": {"A": "1", "B": "2"}}, {"key": {"token": "t"}})


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(NOPE)", "$(NOPE)"),
        ("$A ${A}", "$A ${A}"),
        ("a$", "a$"),
        ("$(A)$(A)", "11"),
    ],
)
def test_references_expand_as_in_kubernetes(text: str, result: str) -> None:
    assert expand(text, {"A": "1"}) == result


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "team"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['app']", "x"),
        ("metadata.annotations['none']", ""),
        ("metadata.labels", 'app="x"\ntier="y"'),
        ("status.podIP", "10.88.0.2"),
        ("status.hostIP", "127.0.0.1"),
        ("spec.nodeName", "local"),
        ("spec.serviceAccountName", "default"),
    ],
)
def test_fields_of_the_pod_are_known(path: str, value: str) -> None:
    assert pod_field(path, FACTS) == value


def test_an_unknown_field_is_an_error_that_names_it() -> None:
    with pytest.raises(ContainerError, match=r"spec\.color"):
        pod_field("spec.color", FACTS)


def test_later_sources_win_and_earlier_variables_can_be_referred_to() -> None:
    container = Container(
        "main",
        env_from=(EnvFrom(prefix="C_", config_map_ref=EnvFromRef("conf")),),
        env=(
            EnvVar("PATH", "/mine"),
            EnvVar("BUILT", "$(C_A)-$(C_B)"),
            EnvVar("TOKEN", value_from=EnvSource(secret_key_ref=KeySelector("key", "token"))),
            EnvVar("IP", value_from=EnvSource(field_ref=FieldSelector("status.podIP"))),
            EnvVar("GONE", value_from=EnvSource(secret_key_ref=KeySelector("none", "x", optional=True))),
        ),
    )

    assert container_environment(container, FACTS, {"PATH": "/base", "LANG": "C"}) == {
        "PATH": "/mine",
        "LANG": "C",
        "HOSTNAME": "web",
        "C_A": "1",
        "C_B": "2",
        "BUILT": "1-2",
        "TOKEN": "t",
        "IP": "10.88.0.2",
    }


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (EnvSource(secret_key_ref=KeySelector("none", "x")), "secret 'none' not found"),
        (EnvSource(config_map_key_ref=KeySelector("conf", "Z")), "key 'Z' in configmap 'conf'"),
    ],
)
def test_a_missing_object_or_key_is_an_error_that_names_it(source: EnvSource, words: str) -> None:
    container = Container("main", env=(EnvVar("X", value_from=source),))

    with pytest.raises(ContainerError, match=words) as caught:
        container_environment(container, FACTS, {})

    assert caught.value.reason == "CreateContainerConfigError"


def test_command_replaces_the_entrypoint_and_its_arguments_and_args_only_the_arguments() -> None:
    assert container_command(Container("c"), ["run"], ["-a"]) == ["run", "-a"]
    assert container_command(Container("c", args=("-b",)), ["run"], ["-a"]) == ["run", "-b"]
    assert container_command(Container("c", command=("x",)), ["run"], ["-a"]) == ["x"]
    assert container_command(Container("c", command=("x",), args=("y",)), ["run"], ["-a"]) == ["x", "y"]
    with pytest.raises(ContainerError, match="no command specified"):
        container_command(Container("c", image="localhost/host"), [], [])


def test_variables_that_double_each_other_end_as_an_error_and_not_the_memory() -> None:
    doubling = [EnvVar("V0", "x" * 16)] + [EnvVar(f"V{n + 1}", f"$(V{n})$(V{n})") for n in range(64)]

    with pytest.raises(ContainerError, match="grows beyond"):
        container_environment(Container("c", env=tuple(doubling)), FACTS, {})
