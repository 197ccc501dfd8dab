"""POST on a collection."""

import re

import pytest

from agent_sandbox.testing.conformance import Api, config_map, widget


async def test_a_new_object_gets_what_only_the_server_gives(api: Api) -> None:
    """UID, creationTimestamp and resourceVersion are the server's."""
    created = await api.create(api.config_maps, config_map("a"))

    metadata = created["metadata"]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", metadata["uid"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", metadata["creationTimestamp"])
    assert int(metadata["resourceVersion"]) > 0
    assert metadata["namespace"] == api.namespace


async def test_what_the_client_says_about_uid_and_creation_time_is_ignored(api: Api) -> None:
    """Server-owned metadata in a create has no effect."""
    body = config_map("a", uid="mine", creationTimestamp="2000-01-01T00:00:00Z")
    created = await api.create(api.config_maps, body)

    assert created["metadata"]["uid"] != "mine"
    assert not created["metadata"]["creationTimestamp"].startswith("2000")


async def test_apiversion_and_kind_may_be_left_out(api: Api) -> None:
    """The path says what the body is."""
    created = await api.create(api.config_maps, {"metadata": {"name": "a"}})

    assert (created["apiVersion"], created["kind"]) == ("v1", "ConfigMap")


async def test_a_second_object_of_the_same_name_is_refused(api: Api) -> None:
    """409 AlreadyExists names the object."""
    await api.create(api.config_maps, config_map("a"))
    answer = await api.request("POST", api.config_maps, config_map("a"))

    assert answer.status == 409
    assert answer.json["reason"] == "AlreadyExists"
    assert answer.json["message"] == 'configmaps "a" already exists'
    assert answer.json["details"] == {"name": "a", "kind": "configmaps"}


async def test_already_exists_of_a_group_names_the_group(api: Api) -> None:
    """The resource is qualified in message and details."""
    await api.create(api.widgets, widget("a"))
    answer = await api.request("POST", api.widgets, widget("a"))

    assert answer.json["message"] == 'widgets.conformance.agents.dev "a" already exists'
    assert answer.json["details"]["group"] == "conformance.agents.dev"


async def test_generate_name_appends_five_letters(api: Api) -> None:
    """The suffix uses letters and digits that cannot spell a word."""
    body = {"metadata": {"generateName": "job-"}}
    first = await api.create(api.config_maps, body)
    second = await api.create(api.config_maps, body)

    assert re.fullmatch(r"job-[bcdfghjklmnpqrstvwxz2456789]{5}", first["metadata"]["name"])
    assert first["metadata"]["name"] != second["metadata"]["name"]
    assert first["metadata"]["generateName"] == "job-"


async def test_generate_name_cuts_a_long_prefix(api: Api) -> None:
    """The name stays within 63 characters."""
    created = await api.create(api.config_maps, {"metadata": {"generateName": "x" * 80}})

    assert len(created["metadata"]["name"]) == 63


async def test_name_wins_over_generate_name(api: Api) -> None:
    """With both, the name is used."""
    created = await api.create(api.config_maps, {"metadata": {"name": "a", "generateName": "b-"}})

    assert created["metadata"]["name"] == "a"


async def test_a_name_is_required(api: Api) -> None:
    """422 names metadata.name."""
    answer = await api.request("POST", api.config_maps, {"metadata": {}})

    assert answer.status == 422
    assert answer.json["reason"] == "Invalid"
    assert answer.json["details"]["causes"][0]["field"] == "metadata.name"
    assert "name or generateName is required" in answer.json["message"]


@pytest.mark.parametrize("name", ["Upper", "under_score", "-dash", "dot.", "a" * 254, "sp ace"])
async def test_a_name_must_be_a_dns_subdomain(api: Api, name: str) -> None:
    """422 names metadata.name."""
    answer = await api.request("POST", api.config_maps, config_map(name))

    assert answer.status == 422
    assert {cause["field"] for cause in answer.json["details"]["causes"]} == {"metadata.name"}


async def test_a_missing_namespace_is_not_found(api: Api) -> None:
    """404 names the namespace, not the object."""
    answer = await api.request("POST", "/api/v1/namespaces/nowhere/configmaps", config_map("a"))

    assert answer.status == 404
    assert answer.json["message"] == 'namespaces "nowhere" not found'


async def test_the_bodys_namespace_must_be_the_paths(api: Api) -> None:
    """400 says that they differ."""
    answer = await api.request("POST", api.config_maps, config_map("a", namespace="other"))

    assert answer.status == 400
    assert "does not match the namespace" in answer.json["message"]


async def test_the_bodys_kind_must_be_the_paths(api: Api) -> None:
    """400 for an object of another kind."""
    answer = await api.request("POST", api.config_maps, {**config_map("a"), "kind": "Secret"})

    assert answer.status == 400
    assert answer.json["reason"] == "BadRequest"


async def test_a_resource_version_must_not_be_set(api: Api) -> None:
    """A create is no update."""
    answer = await api.request("POST", api.config_maps, config_map("a", resourceVersion="5"))

    assert "resourceVersion should not be set on objects to be created" in answer.json["message"]


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"labels": {"bad key!": "x"}}, "metadata.labels"),
        ({"labels": {"key": "bad value!"}}, "metadata.labels"),
        ({"labels": {"key": "x" * 64}}, "metadata.labels"),
        ({"annotations": {"bad key!": "x"}}, "metadata.annotations"),
        ({"finalizers": ["Bad Finalizer"]}, "metadata.finalizers[0]"),
    ],
)
async def test_metadata_is_checked(api: Api, metadata: dict[str, object], field: str) -> None:
    """422 names the field."""
    answer = await api.request("POST", api.config_maps, config_map("a", **metadata))

    assert answer.status == 422
    assert any(cause["field"].startswith(field.split("[", maxsplit=1)[0]) for cause in answer.json["details"]["causes"])


async def test_labels_must_be_strings(api: Api) -> None:
    """400, as the body does not decode."""
    answer = await api.request("POST", api.config_maps, config_map("a", labels={"n": 1}))

    assert answer.status == 400
    assert "cannot unmarshal number" in answer.json["message"]


async def test_broken_json_is_a_bad_request(api: Api) -> None:
    """400 for a body that does not parse."""
    answer = await api.request("POST", api.config_maps, b"{not json")

    assert answer.status == 400
    assert answer.json["reason"] == "BadRequest"


async def test_yaml_is_read_as_well(api: Api) -> None:
    """application/yaml is an accepted format."""
    body = b"metadata:\n  name: a\ndata:\n  when: '2001-01-01'\n"
    answer = await api.request("POST", api.config_maps, body, content_type="application/yaml")

    assert answer.status == 201
    assert answer.json["data"] == {"when": "2001-01-01"}


async def test_another_format_is_unsupported(api: Api) -> None:
    """415 for a body that is neither JSON nor YAML."""
    answer = await api.request("POST", api.config_maps, b"<a/>", content_type="text/xml")

    assert answer.status == 415
    assert answer.json["reason"] == "UnsupportedMediaType"


async def test_dry_run_answers_and_keeps_nothing(api: Api) -> None:
    """The answer is as if it had been created."""
    answer = await api.request("POST", api.config_maps, config_map("a"), dryRun="All")

    assert answer.status == 201
    assert answer.json["metadata"]["uid"]
    assert (await api.get(f"{api.config_maps}/a")).status == 404


async def test_dry_run_checks_all_the_same(api: Api) -> None:
    """An invalid object is refused."""
    answer = await api.request("POST", api.config_maps, config_map("Bad"), dryRun="All")

    assert answer.status == 422


async def test_an_unknown_dry_run_value_is_refused(api: Api) -> None:
    """Only All is known."""
    answer = await api.request("POST", api.config_maps, config_map("a"), dryRun="Some")

    assert answer.status == 422


async def test_unknown_fields_are_dropped_with_a_warning(api: Api) -> None:
    """fieldValidation is Warn unless said otherwise."""
    answer = await api.request("POST", api.config_maps, {**config_map("a"), "nonsense": 1})

    assert answer.status == 201
    assert "nonsense" not in answer.json
    assert 'unknown field \\"nonsense\\"' in answer.headers["Warning"].replace('"nonsense"', '\\"nonsense\\"')


async def test_strict_validation_refuses_unknown_fields(api: Api) -> None:
    """400 names the field."""
    body = {**config_map("a"), "nonsense": 1}
    answer = await api.request("POST", api.config_maps, body, fieldValidation="Strict")

    assert answer.status == 400
    assert 'strict decoding error: unknown field "nonsense"' in answer.json["message"]


async def test_ignore_validation_is_silent(api: Api) -> None:
    """No warning, no refusal."""
    body = {**config_map("a"), "nonsense": 1}
    answer = await api.request("POST", api.config_maps, body, fieldValidation="Ignore")

    assert answer.status == 201
    assert "Warning" not in answer.headers


async def test_nulls_are_as_good_as_nothing(api: Api) -> None:
    """A null in metadata is dropped."""
    created = await api.create(api.config_maps, config_map("a", labels=None, annotations={"x": "y"}))

    assert "labels" not in created["metadata"]


PROTOBUF = "application/vnd.kubernetes.protobuf"


def _text(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer that is shorter than 128 bytes."""
    return bytes([number << 3 | 2, len(content)]) + content


def _envelope(version: bytes, kind: bytes, *fields: bytes) -> bytes:
    return b"k8s\x00" + _text(1, _text(1, version) + _text(2, kind)) + _text(2, b"".join(fields))


async def test_a_body_may_be_protobuf_and_the_answer_json(api: Api) -> None:
    """As kubectl create sends it."""
    body = _envelope(b"v1", b"ConfigMap", _text(1, _text(1, b"a")), _text(2, _text(1, b"k") + _text(2, b"v")))
    answer = await api.request("POST", api.config_maps, body, content_type=PROTOBUF)

    assert answer.status == 201
    assert answer.json["data"] == {"k": "v"}
    assert answer.json["metadata"]["name"] == "a"


@pytest.mark.parametrize(
    "body", [b"k8s\x00\xff", b'{"metadata":{"name":"a"}}', _envelope(b"v1", b"ConfigMap", b"\x0a\x7f")]
)
async def test_a_protobuf_body_that_does_not_parse_is_a_bad_request(api: Api, body: bytes) -> None:
    """400, whatever is wrong with it."""
    answer = await api.request("POST", api.config_maps, body, content_type=PROTOBUF)

    assert (answer.status, answer.json["reason"]) == (400, "BadRequest")


async def test_custom_kinds_are_not_served_in_protobuf(api: Api) -> None:
    """Asked for without field validation: with it, the handler of Kubernetes 1.36 panics."""
    body = _envelope(b"conformance.agents.dev/v1", b"Widget", _text(1, _text(1, b"a")))
    answer = await api.request("POST", api.widgets, body, content_type=PROTOBUF, fieldValidation="Ignore")

    assert answer.status == {"embedded": 415, "kubernetes": 400}[api.server]
    assert (await api.get(api.widgets)).names == []


async def test_delete_options_may_be_protobuf(api: Api) -> None:
    """A precondition in them holds."""
    await api.create(api.config_maps, config_map("a"))
    options = _envelope(b"v1", b"DeleteOptions", _text(2, _text(1, b"another-uid")))
    answer = await api.request("DELETE", f"{api.config_maps}/a", options, content_type=PROTOBUF)

    assert (answer.status, answer.json["reason"]) == (409, "Conflict")
