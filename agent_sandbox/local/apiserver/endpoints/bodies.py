"""Reads a request's body into JSON values, whatever of the accepted formats it came in."""

from typing import Any

import msgspec
import yaml

from agent_sandbox.local.apiserver.errors import BadRequestError, RequestTooLargeError, UnsupportedMediaError
from agent_sandbox.local.apiserver.http import ApiRequest
from agent_sandbox.local.apiserver.protobuf import PROTOBUF, UnknownMessageError, WireError, decode_body

MAX_BODY_BYTES = 3 * 1024 * 1024
"""Kubernetes' own limit of a request body."""

_JSON_TYPES = frozenset({"", "application/json", "*/*"})
_YAML_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "application/apply-patch+yaml"})
_NAMED_TYPES = ("application/json", "application/yaml")


def read_value(request: ApiRequest) -> Any:
    """The body as a JSON value.

    Raises:
        RequestTooLargeError: it is longer than Kubernetes allows.
        UnsupportedMediaError: it is in another format.
        BadRequestError: it does not parse.
    """
    if len(request.body) > MAX_BODY_BYTES:
        raise RequestTooLargeError(MAX_BODY_BYTES)
    content_type = request.content_type
    if content_type in _YAML_TYPES:
        return _read_yaml(request.body)
    if content_type in _JSON_TYPES or content_type.endswith("+json"):
        return _read_json(request.body)
    if content_type == PROTOBUF:
        return _read_protobuf(request.body)
    raise UnsupportedMediaError(_NAMED_TYPES)


def read_object(request: ApiRequest) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
        StatusError: see ``read_value``; also if it is something else than an object.
    """
    value = read_value(request)
    if not isinstance(value, dict):
        raise BadRequestError("the request body must be an object")
    metadata = value.setdefault("metadata", {})
    if metadata is None:
        value["metadata"] = {}
    elif not isinstance(metadata, dict):
        raise BadRequestError(f"json: cannot unmarshal {type(metadata).__name__} into Go struct field .metadata")
    return value


def _read_json(body: bytes) -> Any:
    if not body.strip():
        raise BadRequestError("the request body is empty")
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequestError(f"couldn't get version/kind; json parse error: {error}") from error


def _read_protobuf(body: bytes) -> Any:
    """What kubectl's typed commands send; for other kinds it is a format that is not served."""
    try:
        return decode_body(body)
    except UnknownMessageError as error:
        raise UnsupportedMediaError(_NAMED_TYPES) from error
    except WireError as error:
        raise BadRequestError(f"the object provided is unrecognized: {error}") from error


class _Loader(yaml.SafeLoader):
    """Times stay text: JSON has none."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _read_yaml(body: bytes) -> Any:
    if body.lstrip()[:1] == b"{":
        try:
            return msgspec.json.decode(body)
        except msgspec.DecodeError:
            # YAML's flow style begins with a brace as well.
            pass
    try:
        return yaml.load(body, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise BadRequestError(f"error decoding YAML: {error}") from error
