"""The error tree as callers use it: by family, printed, pickled."""

import pickle
from typing import Any

import pytest

from agent_sandbox.sdk import errors

KEYWORDS: dict[type[errors.SandboxError], dict[str, Any]] = {
    errors.SandboxClaimFailedError: {"reason": "R"},
    errors.SandboxPodFailedError: {"reason": "R"},
    **{
        kind: {"status": 404, "detail": "d"}
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.SandboxRequestError)
    },
}
KINDS = [getattr(errors, name) for name in errors.__all__]


def make(kind: type[errors.SandboxError]) -> errors.SandboxError:
    """One error of that kind."""
    return kind("what happened", **KEYWORDS.get(kind, {}))


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_a_runtime_error_and_prints_its_message(kind: type[errors.SandboxError]) -> None:
    assert isinstance(make(kind), RuntimeError)
    assert str(make(kind)) == "what happened"


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_survives_a_process_boundary(kind: type[errors.SandboxError]) -> None:
    copy = pickle.loads(pickle.dumps(make(kind)))

    assert type(copy) is kind
    assert copy.__dict__ == make(kind).__dict__
    assert str(copy) == "what happened"


def test_families_of_the_standard_library_catch_them() -> None:
    assert issubclass(errors.SandboxReadyTimeoutError, TimeoutError)
    assert issubclass(errors.CommandTimeoutError, TimeoutError)
    assert issubclass(errors.SandboxFileNotFoundError, FileNotFoundError)
    assert issubclass(errors.SandboxPermissionError, PermissionError)
    assert issubclass(errors.SandboxConnectionError, ConnectionError)


def test_the_drawing_shows_every_class() -> None:
    assert errors.__doc__ is not None
    for name in errors.__all__:
        assert f"{name} " in errors.__doc__.replace("\n", " "), name
