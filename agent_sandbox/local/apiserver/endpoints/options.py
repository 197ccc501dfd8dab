"""Reads the options of a write or a delete from the query and the body."""

import msgspec

from agent_sandbox.local.apiserver.endpoints.bodies import read_value
from agent_sandbox.local.apiserver.errors import BadRequestError, Cause, OptionError, StatusError
from agent_sandbox.local.apiserver.http import ApiRequest, UserInfo
from agent_sandbox.local.apiserver.objects import DeleteOptions, WriteOptions

_MANAGER_LIMIT = 128
_FIELD_VALIDATIONS = ("Ignore", "Strict", "Warn")


def write_options(request: ApiRequest, subresource: str = "") -> WriteOptions:
    """The options of a create, update or patch.

    Raises:
        StatusError: an option has no such value.
    """
    return WriteOptions(
        dry_run=_dry_run(request),
        field_manager=request.parameter("fieldManager")[:_MANAGER_LIMIT] or _agent_name(request),
        subresource=subresource,
        user=request.user or UserInfo(),
        field_validation=_field_validation(request),
    )


def apply_options(request: ApiRequest, subresource: str) -> WriteOptions:
    """The options of a server-side apply.

    Raises:
        StatusError: an option has no such value, or the manager is not named.
    """
    if not request.parameter("fieldManager"):
        cause = Cause.required("fieldManager", "is required for apply patch")
        raise _invalid_option(cause, "PatchOptions")
    return write_options(request, subresource)


def _field_validation(request: ApiRequest) -> str:
    wanted = request.parameter("fieldValidation") or "Warn"
    if wanted not in _FIELD_VALIDATIONS:
        supported = ", ".join(f'"{value}"' for value in _FIELD_VALIDATIONS)
        message = f'Unsupported value: "{wanted}": supported values: {supported}'
        raise _invalid_option(Cause("FieldValueNotSupported", "fieldValidation", message))
    return wanted


def _agent_name(request: ApiRequest) -> str:
    """Kubernetes names an unnamed manager after the first word of its User-Agent."""
    agent = request.headers.get("user-agent", "").split("/")[0]
    return agent[:_MANAGER_LIMIT] or "unknown"


def _dry_run(request: ApiRequest) -> bool:
    values = [value for value in request.parameters("dryRun") if value]
    if any(value != "All" for value in values):
        shown = "[" + " ".join(values) + "]"
        cause = Cause("FieldValueNotSupported", "dryRun", f'Unsupported value: {shown}: supported values: "All"')
        raise _invalid_option(cause)
    return bool(values)


def _invalid_option(cause: Cause, kind: str = "CreateOptions") -> StatusError:
    return OptionError(kind, cause)


def delete_options(request: ApiRequest) -> DeleteOptions:
    """The options of a delete: the body's, or the query's.

    Raises:
        StatusError: they do not parse.
    """
    source = {}
    if request.body.strip():
        body = read_value(request)
        if not isinstance(body, dict):
            raise BadRequestError("delete options must be an object")
        source = body
    for name in ("propagationPolicy",):
        if request.parameter(name):
            source.setdefault(name, request.parameter(name))
    for name in ("gracePeriodSeconds", "orphanDependents"):
        if request.parameter(name):
            source.setdefault(name, _scalar(request.parameter(name)))
    if _dry_run(request):
        source["dryRun"] = ["All"]
    return DeleteOptions.parse(source)


def _scalar(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise BadRequestError(f'cannot read "{text}": {error}') from error
